package dev

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

// say prints one line with the time.
func say(out io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(out, time.Now().Format(time.TimeOnly)+"  "+format+"\n", args...)
}

var banner = template.Must(template.New("banner").Parse(`
################################################################################
#  INSECURE: development mode. A local STS, throw-away keys, a known tenant.   #
#  No S3 accepts these credentials. Never point a real agent at it.            #
################################################################################

broker {{.Address}}, enrollment {{.Enrollment}}, local STS {{.STS}}, everything else in {{.Dir}}
user {{.User}}, password in {{.Dir}}/password

Try, in another terminal, as the agent:

  . {{.Dir}}/env
  bin/stoker-agent watch
  bin/stoker-agent exec -- env
  grpcurl -cacert {{.Dir}}/ca.pem -cert {{.Dir}}/agent.pem -key {{.Dir}}/agent.key {{.Address}} list

and in a third, as the operator (docs/grpcurl.md has every call):

  . {{.Dir}}/operator
  bin/stokerctl status
  bin/stokerctl streams
  bin/stokerctl audit tail
  bin/stokerctl user update {{.User}} --disable

Control-C stops it and removes {{.Dir}}.

`))

// welcome writes the files that the commands use and prints the banner.
func welcome(o Options, address, enrollment, sts, password string) error {
	user := Login + "@" + Tenant
	absolute, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.Dir, "password"), []byte(password), 0o600); err != nil {
		return err
	}
	// env is written last: it tells a waiting script that all is ready.
	for _, f := range []struct {
		name, certificate string
		more              []string
	}{
		{"operator", Operator, nil},
		{"env", "agent", []string{
			"export STOKER_LOGIN=" + user,
			"export STOKER_PASSWORD_FILE=" + quote(filepath.Join(absolute, "password")),
		}},
	} {
		lines := append([]string{
			"export STOKER_BROKER=" + address,
			"export STOKER_CA=" + quote(filepath.Join(absolute, "ca.pem")),
			"export STOKER_CERT=" + quote(filepath.Join(absolute, f.certificate+".pem")),
			"export STOKER_KEY=" + quote(filepath.Join(absolute, f.certificate+".key")),
		}, f.more...)
		if err := os.WriteFile(filepath.Join(o.Dir, f.name), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			return err
		}
	}
	return banner.Execute(o.Out, map[string]string{"Address": address, "Enrollment": enrollment, "STS": sts, "Dir": o.Dir, "User": user})
}

// quote makes a text safe for a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
