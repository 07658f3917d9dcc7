package e2e_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// page is a page of the documentation.
type page struct {
	path, text string
}

func readPage(t *testing.T, name string) *page {
	t.Helper()
	path := filepath.Join("..", "..", "docs", name)
	text, err := os.ReadFile(path)
	must(t, err)
	return &page{path, string(text)}
}

// block is what stands between two fences of a page.
type block struct {
	// kind is the text after the first fence, such as "sh operator".
	kind, text string
}

var fenced = regexp.MustCompile("(?ms)^```([a-z ]+)\n(.*?)^```$")

// blocks are those of the page, in order.
func (p *page) blocks() (all []block) {
	for _, m := range fenced.FindAllStringSubmatch(p.text, -1) {
		all = append(all, block{m[1], m[2]})
	}
	return all
}

// exchange is a command of a "console" block, where it follows a dollar sign,
// and what the page says that it prints.
type exchange struct {
	command, output string
}

// exchanges splits a console block. A command goes on after a line that ends in
// a backslash or a pipe.
func (b block) exchanges() (all []exchange) {
	goesOn := false
	for line := range strings.Lines(b.text) {
		command, begins := strings.CutPrefix(line, "$ ")
		switch {
		case begins:
			all = append(all, exchange{command: command})
		case goesOn:
			all[len(all)-1].command += line
		default:
			all[len(all)-1].output += line
		}
		goesOn = (begins || goesOn) && (strings.HasSuffix(line, "\\\n") || strings.HasSuffix(line, "|\n"))
	}
	return all
}

// exchanges are those of all console blocks, in order.
func (p *page) exchanges() (all []exchange) {
	for _, b := range p.blocks() {
		if b.kind == "console" {
			all = append(all, b.exchanges()...)
		}
	}
	return all
}

// stage is where a page's console blocks are played.
type stage struct {
	dir string
	env []string
	// names are what the page calls things, by what they are called here.
	names map[string]string
}

// play runs all console commands of the page in one bash, one after the other,
// and compares what they print with what the page says. With
// STOKER_UPDATE_DOCS=1 it writes the page anew instead.
func (p *page) play(ctx context.Context, t *testing.T, s stage) {
	t.Helper()
	var commands []string
	for _, e := range p.exchanges() {
		commands = append(commands, e.command)
	}
	printed := s.run(ctx, t, commands)
	next := 0
	updated := fenced.ReplaceAllStringFunc(p.text, func(text string) string {
		m := fenced.FindStringSubmatch(text)
		if m[1] != "console" {
			return text
		}
		var out strings.Builder
		for _, e := range (block{m[1], m[2]}).exchanges() {
			got := printed[next]
			next++
			if masked(got) == masked(e.output) {
				got = e.output // no need to change the page
			} else if os.Getenv("STOKER_UPDATE_DOCS") == "" {
				t.Errorf("$ %sprints\n%s\nthe page says\n%s", e.command, got, e.output)
			}
			out.WriteString("$ " + e.command + got)
		}
		return "```console\n" + out.String() + "```"
	})
	if t.Failed() {
		t.Log("STOKER_UPDATE_DOCS=1 writes what is printed into the page")
	}
	if os.Getenv("STOKER_UPDATE_DOCS") != "" && updated != p.text {
		must(t, os.WriteFile(p.path, []byte(updated), 0o644))
	}
}

// separator stands between the outputs of two commands.
const separator = "\x1e"

// run gives what each command prints, as a page shows it. A command may fail:
// what it prints says so.
func (s stage) run(ctx context.Context, t *testing.T, commands []string) (printed []string) {
	t.Helper()
	script := "exec 2>&1\n"
	for _, c := range commands {
		for here, there := range s.names {
			c = strings.ReplaceAll(c, there, here)
		}
		script += c + "printf '" + separator + "'\n"
	}
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir, cmd.Env = s.dir, s.env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Run())
	printed = strings.Split(out.String(), separator)
	if len(printed) != len(commands)+1 {
		t.Fatalf("%d outputs of %d commands; the last:\n%s", len(printed)-1, len(commands), printed[len(printed)-1])
	}
	printed = printed[:len(commands)]
	for i, text := range printed {
		for here, there := range s.names {
			text = strings.ReplaceAll(text, here, there)
		}
		printed[i] = shown(text)
	}
	return printed
}

var (
	secrets = regexp.MustCompile(`"(generatedPassword|accessToken|secretAccessKey|sessionToken|joinToken)": "[^"]*"`)
	long    = regexp.MustCompile(`"([A-Za-z0-9+/=_-]{24})[A-Za-z0-9+/=_-]{40,}"`)
)

// shown is how a page has an output: without secrets, and without the rest of
// long values.
func shown(output string) string {
	output = secrets.ReplaceAllString(output, `"$1": "(secret)"`)
	output = long.ReplaceAllString(output, `"$1..."`)
	if output != "" && !strings.HasSuffix(output, "\n") {
		output += "\n"
	}
	return output
}

// volatile is what differs from run to run, and what stands for it.
var volatile = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "(uuid)"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?`), "(time)"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d`), "(date)"},
	// A count of nothing is left out: of a minute in which no credential was renewed.
	{regexp.MustCompile(`\n *"(issuedLastMinute|renewedLastMinute)": "\d+",`), ""},
	{regexp.MustCompile(`"(certificateSerial|etag|cursor|nextPageToken|serial|policyHash|hash|previousHash|version|sessionName|sequence|firstSequence|lastSequence|records|packed_policy_percent)": "[^"]*"`), `"$1": "(varies)"`},
	{regexp.MustCompile(`"(budget|lag|emptiest)": "?[-0-9.a-z]+"?`), `"$1": (varies)`},
	{regexp.MustCompile(`[0-9a-fA-F]{32,64}`), "(hex)"},
	// How a call ends whose time is over, and how far a denial has come, is a
	// matter of chance.
	{regexp.MustCompile(`context deadline exceeded|the call's deadline passed|stream terminated by RST_STREAM with error code: CANCEL`), "(deadline)"},
	{regexp.MustCompile(`REVOCATION_STATE_(PENDING|APPLIED)`), "(state)"},
	{regexp.MustCompile(`(ASIA|AKIA)[A-Z0-9]{16}`), "(key)"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "(address)"},
	{regexp.MustCompile(`"[A-Za-z0-9+/=_-]{24}\.\.\."`), "(long)"},
	{regexp.MustCompile(`\d+(\.\d+)?(ms|µs|us)\b`), "(moment)"},
}

// masked is an output without what differs from run to run.
func masked(output string) string {
	for _, v := range volatile {
		output = v.pattern.ReplaceAllString(output, v.with)
	}
	return output
}

// A page is split into commands and what they print, and secrets are not among
// that.
func TestPages(t *testing.T) {
	p := &page{text: "Text.\n\n```console\n$ one \\\n  more\noutput\n$ two\n```\n\n```sh agent\nthree\n```\n"}
	blocks := p.blocks()
	if len(blocks) != 2 || blocks[1] != (block{"sh agent", "three\n"}) {
		t.Fatalf("%q", blocks)
	}
	got := blocks[0].exchanges()
	if len(got) != 2 || got[0] != (exchange{"one \\\n  more\n", "output\n"}) || got[1] != (exchange{"two\n", ""}) {
		t.Errorf("%q", got)
	}
	text := `"accessToken": "eyJ", "id": "01a20943-5b78-76da-8965-86945313a324", "hash": ` + strconv.Quote(strings.Repeat("0a", 32))
	if want := `"accessToken": "(secret)", "id": "(uuid)", "hash": "(varies)"` + "\n"; masked(shown(text)) != want {
		t.Errorf("%q", masked(shown(text)))
	}
}
