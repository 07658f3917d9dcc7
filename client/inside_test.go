package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// TestReasonsAreDocumented compares the table with errors.proto, both ways.
func TestReasonsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../proto/stoker/v1/errors.proto")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[Reason]bool)
	for _, m := range regexp.MustCompile(`(?m)((?:^  //.*\n)+)^  ERROR_REASON_([A-Z0-9_]+) = \d+;`).FindAllStringSubmatch(string(text), -1) {
		if m[2] == "UNSPECIFIED" {
			continue
		}
		comment := strings.TrimSpace(m[1])
		switch {
		case strings.HasPrefix(comment, "// Transient."):
			documented[Reason(m[2])] = true
		case strings.HasPrefix(comment, "// Permanent."):
			documented[Reason(m[2])] = false
		default:
			t.Errorf("%s: its comment says neither Transient nor Permanent", m[2])
		}
	}
	if len(documented) != len(stokerv1.ErrorReason_name)-1 {
		t.Errorf("%d reasons found in errors.proto, %d in the generated code", len(documented), len(stokerv1.ErrorReason_name)-1)
	}
	for reason, want := range documented {
		if got, known := transient[reason]; !known || got != want {
			t.Errorf("%s: known %v, transient %v; documented as transient %v", reason, known, got, want)
		}
	}
	for reason := range transient {
		if _, ok := documented[reason]; !ok {
			t.Errorf("%s is not documented", reason)
		}
	}
	if !Transient("OF_TOMORROW") || !Transient("") || Transient(ReasonLoginRejected) {
		t.Error("Transient")
	}
}

func TestPace(t *testing.T) {
	most := pace{random: func(d time.Duration) time.Duration { return d }}
	least := pace{random: func(time.Duration) time.Duration { return 0 }}
	busy := &Error{Transient: true, RetryAfter: 30 * time.Second}
	refused := &Error{Reason: ReasonLoginRejected}
	for i, want := range []time.Duration{1, 1, 2, 4, 8, 16, 32, 60, 60, 60} {
		if got := most.next(nil, 0); got != want*time.Second {
			t.Errorf("failure %d: %v, want %v", i+1, got, want*time.Second)
		}
		if got := least.next(nil, 0); got != 0 {
			t.Errorf("failure %d: at least %v", i+1, got)
		}
	}
	most.reset()
	for i, want := range []time.Duration{10, 10, 20, 40, 60, 60} {
		if got := most.next(nil, time.Hour); got != want*time.Second {
			t.Errorf("failure %d with credentials: %v, want %v", i+1, got, want*time.Second)
		}
	}
	most.reset()
	if got := most.next(nil, 20*time.Second); got != 2*time.Second {
		t.Errorf("with short credentials: %v", got)
	}
	most.reset()
	if got := most.next(busy, 0); got != 31*time.Second {
		t.Errorf("as told: %v", got)
	}
	if got := least.next(busy, 0); got != 30*time.Second {
		t.Errorf("as told, at least: %v", got)
	}
	if got := most.next(&Error{Transient: true, RetryAfter: 1000 * time.Hour}, 0); got > 2*time.Hour {
		t.Errorf("told nonsense: %v", got)
	}
	if got := most.next(refused, 0); got != 5*time.Minute {
		t.Errorf("refused: %v", got)
	}
	if got := least.next(refused, time.Hour); got != 150*time.Second {
		t.Errorf("refused, at least: %v", got)
	}
	most.reset()
	if got := most.next(&Error{Reason: ReasonSessionEnded}, 0); got != time.Second {
		t.Errorf("a login helps: %v", got)
	}
	ended := &Error{Reason: ReasonPasswordChanged, RetryAfter: 30 * time.Second}
	if low, high := least.again(ended), most.again(ended); low != 30*time.Second || high != 32*time.Second {
		t.Errorf("another login after %v to %v", low, high)
	}
	spread := newPace()
	if a, b := spread.next(nil, time.Hour), spread.next(nil, time.Hour); a == b {
		t.Error("no jitter")
	}
}

// TestClock steps and suspends a machine, which a fake clock cannot.
func TestClock(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		server   time.Time
		wall, up time.Duration // what passes on this machine's clocks
		want     time.Time     // the broker's
		local    time.Duration // what is added to a time for this machine
	}{
		"nothing passes":      {noon, 0, 0, noon, 0},
		"an hour":             {noon, time.Hour, time.Hour, noon.Add(time.Hour), 0},
		"suspended":           {noon, time.Hour, time.Minute, noon.Add(time.Hour), 0},
		"set back":            {noon, -time.Hour, time.Minute, noon.Add(time.Minute), -time.Hour - time.Minute},
		"an hour behind":      {noon.Add(time.Hour), time.Minute, time.Minute, noon.Add(time.Hour + time.Minute), -time.Hour},
		"a little ahead":      {noon.Add(-time.Second), 0, 0, noon.Add(-time.Second), 0},
		"told nothing so far": {time.Time{}, time.Hour, time.Hour, noon.Add(time.Hour), 0},
	} {
		t.Run(name, func(t *testing.T) {
			at := reading{wall: noon, up: time.Hour}
			k := clock{read: func() reading { return at }}
			if !c.server.IsZero() {
				k.set(c.server)
			}
			at = reading{wall: noon.Add(c.wall), up: time.Hour + c.up}
			if got := k.now(); !got.Equal(c.want) {
				t.Errorf("now %v, want %v", got, c.want)
			}
			if got := k.local(noon).Sub(noon); got != c.local {
				t.Errorf("local %v, want %v", got, c.local)
			}
		})
	}
}

// A clock that is off is named as the cause, with the fix.
func TestClockFaults(t *testing.T) {
	now := time.Now()
	for says, c := range map[string]*x509.Certificate{
		"is good from ": {NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour)},
		"ended at ":     {NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)},
	} {
		fault := &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Cert: c, Reason: x509.Expired}}
		e := fromFault(fault)
		if !strings.Contains(e.Message, says) || !strings.Contains(e.Message, "this machine's clock says "+stamp(now)[:16]) ||
			!strings.Contains(e.Message, "correct the clock") || !errors.Is(e, fault) {
			t.Errorf("%v", e)
		}
		if behind := c.NotBefore.After(now); e.Transient != behind {
			t.Errorf("transient: %v, for %s", e.Transient, says)
		}
	}
}

func TestProxySetting(t *testing.T) {
	for proxy, good := range map[string]bool{
		"": true, "http://proxy.test:3128": true, "proxy.test:3128": true, "http://user:CANARY@proxy.test": true,
		"https://user:CANARY@proxy.test": false, "socks5://proxy.test:1080": false, "http://user:CANARY@proxy.test:x": false, "http://%zzCANARY": false,
	} {
		t.Setenv("HTTPS_PROXY", proxy)
		t.Setenv("NO_PROXY", "direct.test")
		err := checkProxy("broker.test:7443")
		if (err == nil) != good {
			t.Errorf("%q: %v", proxy, err)
		}
		if err != nil && (strings.Contains(err.Error(), "CANARY") || !strings.Contains(err.Error(), "HTTPS_PROXY") || asError(err).Transient) {
			t.Errorf("%q: %v", proxy, err)
		}
	}
	t.Setenv("HTTPS_PROXY", "socks5://proxy.test:1080")
	if err := checkProxy("direct.test:7443"); err != nil {
		t.Errorf("beside the proxy: %v", err)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                      "plain",
		"two\nlines\x1b[31m":         "two lines [31m",
		"bad \xff byte":              "bad   byte",
		strings.Repeat("long ", 400): strings.Repeat("long ", 400)[:longestMessage] + "...",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// deafStream takes what is sent to nobody.
type deafStream struct {
	grpc.BidiStreamingClient[stokerv1.StreamCredentialsRequest, stokerv1.StreamCredentialsResponse]
}

func (deafStream) Send(*stokerv1.StreamCredentialsRequest) error { return nil }

// FuzzHandle lets a broker say anything. A credential in use is always whole,
// and nothing panics.
func FuzzHandle(f *testing.F) {
	now := time.Now()
	for _, m := range []*stokerv1.StreamCredentialsResponse{
		{},
		{Message: &stokerv1.StreamCredentialsResponse_Welcome{Welcome: &stokerv1.Welcome{StreamId: "s"}}},
		{Message: &stokerv1.StreamCredentialsResponse_Credential{Credential: &stokerv1.Credential{
			Id: "1", Grant: "photos", AccessKeyId: "A", SecretAccessKey: "S", SessionToken: "T",
			IssueTime: timestamppb.New(now), ExpireTime: timestamppb.New(now.Add(time.Hour)),
		}}},
		{Message: &stokerv1.StreamCredentialsResponse_Problem{Problem: &stokerv1.Problem{Grant: "photos"}}},
		{Message: &stokerv1.StreamCredentialsResponse_Revocation{Revocation: &stokerv1.Revocation{Grant: "photos"}}},
		{Message: &stokerv1.StreamCredentialsResponse_Reconnect{Reconnect: &stokerv1.Reconnect{}}},
		{Message: &stokerv1.StreamCredentialsResponse_Heartbeat{Heartbeat: &stokerv1.Heartbeat{ServerTime: timestamppb.New(now)}}},
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &stokerv1.StreamCredentialsResponse{}
		if err := proto.Unmarshal(data, m); err != nil {
			t.Skip("not a message")
		}
		s := newSource(Config{Logger: slog.New(slog.DiscardHandler)})
		c := &conversation{source: s, welcomed: true, issued: make(map[string]time.Time), stream: deafStream{}}
		if err := c.handle(m); err != nil && err.Message == "" {
			t.Error("an error says nothing")
		}
		for _, name := range s.Grants() {
			if got, err := s.Credential(name); err == nil && (!plain(got.AccessKeyID) || !plain(got.SecretAccessKey) || !plain(got.SessionToken)) {
				t.Errorf("%q is in use", got.AccessKeyID)
			}
		}
		_ = s.Status()
	})
}

// The package has no global state: its variables are errors, patterns and tables,
// and nothing runs when it is imported.
func TestNoGlobalState(t *testing.T) {
	constant := regexp.MustCompile(`^(errors\.New|regexp\.MustCompile)$`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range parsed.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function", file)
			}
			variables, ok := declaration.(*ast.GenDecl)
			if !ok || variables.Tok != token.VAR {
				continue
			}
			for _, spec := range variables.Specs {
				v := spec.(*ast.ValueSpec)
				for i, name := range v.Names {
					good := false
					if i < len(v.Values) {
						switch value := v.Values[i].(type) {
						case *ast.CallExpr:
							if from, ok := value.Fun.(*ast.SelectorExpr); ok {
								good = constant.MatchString(from.X.(*ast.Ident).Name + "." + from.Sel.Name)
							}
						case *ast.CompositeLit: // a table
							good = true
						case *ast.UnaryExpr: // an error of ours
							literal, ok := value.X.(*ast.CompositeLit)
							good = ok && literal.Type.(*ast.Ident).Name == "Error"
						}
					}
					if !good {
						t.Errorf("%s: %s is state, or looks like it", file, name.Name)
					}
				}
			}
		}
	}
}

// A credential's end holds through a suspension, in which the monotonic clock
// stands still, and through steps of the wall clock: it never looks better than it
// is, and what tools are told fits this machine's clock.
func TestCredentialThroughClockSteps(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		wall, up time.Duration // what passes on this machine's clocks
		left     time.Duration // by this machine's clock; 0: it has expired
	}{
		"half an hour":             {30 * time.Minute, 30 * time.Minute, 30 * time.Minute},
		"suspended for two hours":  {2 * time.Hour, time.Second, 0},
		"suspended for a while":    {20 * time.Minute, time.Second, 40 * time.Minute},
		"set back by a day":        {-24*time.Hour + 30*time.Minute, 30 * time.Minute, 30 * time.Minute},
		"set back, and at its end": {-24*time.Hour + 61*time.Minute, 61 * time.Minute, 0},
		"set ahead by a day":       {24 * time.Hour, time.Minute, 0}, // until the broker has said what time it is
	} {
		t.Run(name, func(t *testing.T) {
			at := reading{wall: noon}
			s := newSource(Config{Logger: slog.New(slog.DiscardHandler), Grants: []string{"photos"}})
			s.clock.read = func() reading { return at }
			s.clock.set(noon)
			s.supplies["photos"] = &supply{credential: &Credential{Grant: "photos", Issued: noon, Expires: noon.Add(time.Hour)}}
			at = reading{wall: noon.Add(c.wall), up: c.up}
			got, err := s.lookup("photos")
			if c.left == 0 {
				if err == nil || !errors.Is(err, ErrExpired) {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			if err != nil || got.Expires.Sub(at.wall) != c.left {
				t.Errorf("%v left, %v; want %v", got.Expires.Sub(at.wall), err, c.left)
			}
		})
	}
	// The next heartbeat puts right what a step ahead made look worse.
	at := reading{wall: noon}
	s := newSource(Config{Logger: slog.New(slog.DiscardHandler), Grants: []string{"photos"}})
	s.clock.read = func() reading { return at }
	s.clock.set(noon)
	s.supplies["photos"] = &supply{credential: &Credential{Grant: "photos", Issued: noon, Expires: noon.Add(time.Hour)}}
	at = reading{wall: noon.Add(24 * time.Hour), up: time.Minute}
	s.clock.set(noon.Add(time.Minute))
	if got, err := s.lookup("photos"); err != nil || got.Expires.Sub(at.wall) != 59*time.Minute {
		t.Errorf("after a heartbeat: %v, %v", got, err)
	}
}
