//go:build unix

package tools_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/delivery"
)

// promise is a supply whose credential ends a fixed time after each answer. It
// notes when it was asked.
type promise struct {
	credential client.Credential
	life       time.Duration

	mu    sync.Mutex
	asked []time.Time
}

func (p *promise) Grants() []string { return []string{p.credential.Grant} }

func (p *promise) Credential(string) (client.Credential, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.asked = append(p.asked, now)
	c := p.credential
	c.Expires = now.Add(p.life)
	return c, nil
}

// since is when it was asked from some time on.
func (p *promise) since(began time.Time) []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, at := range p.asked {
		if !at.Before(began) {
			return append([]time.Time(nil), p.asked[i:]...)
		}
	}
	return nil
}

// promised runs the tool against an endpoint whose answers have this long to
// live, until done, and says when it asked.
func (c *cell) promised(ctx context.Context, t *testing.T, life time.Duration, done func(asked []time.Time, j *job) bool) []time.Time {
	t.Helper()
	held := c.one(t, c.name)
	p := &promise{life: life, credential: client.Credential{
		Grant: c.name, AccessKeyID: held.GetAccessKeyId(), SecretAccessKey: held.GetSecretAccessKey(), SessionToken: held.GetSessionToken(),
	}}
	endpoint, err := delivery.Listen("127.0.0.1:0", p, nil)
	must(t, err)
	defer func() { must(t, endpoint.Close()) }()
	runtime := c.yard.path("promises", c.name)
	must(t, os.MkdirAll(filepath.Join(runtime, "stoker-agent"), 0o700))
	must(t, os.WriteFile(filepath.Join(runtime, "stoker-agent", "token"), []byte(endpoint.Admit("tool")), 0o600))
	c.agent = &agent{url: endpoint.URL(""), runtime: runtime}

	j, failed := c.start(ctx, t)
	if j == nil {
		t.Fatal(failed)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !j.over() && !done(p.since(j.began), j) {
		j.feed()
		select {
		case <-ctx.Done():
			t.Fatal(j.said())
		case <-j.ended:
		case <-tick.C:
		}
	}
	j.finish(time.Minute)
	if j.err != nil {
		t.Fatal(j.said())
	}
	return p.since(j.began)
}

// Each tool asks the endpoint again when the page says that it does.
func TestRefreshWindows(t *testing.T) {
	t.Parallel()
	y := newYard(t, 15*time.Minute)
	var mu sync.Mutex
	lines := make(map[string]string)
	t.Run("tool", func(t *testing.T) {
		for _, k := range catalog {
			if k.window == 0 && k.share == 0 {
				continue
			}
			t.Run(k.slug, func(t *testing.T) {
				t.Parallel()
				line := y.windowOf(t, k)
				mu.Lock()
				defer mu.Unlock()
				lines[k.slug] = line
			})
		}
	})
	var out strings.Builder
	out.WriteString("| tool | asks the endpoint again |\n|---|---|\n")
	all := true
	for _, k := range catalog {
		line, ok := lines[k.slug]
		if all = all && (ok || k.window == 0 && k.share == 0); ok {
			fmt.Fprintf(&out, "| %s | %s |\n", k.name, line)
		}
	}
	if all {
		documented(t, "windows", out.String())
	}
}

// windowOf tries what the catalog says of a tool, and says it for the page.
func (y *yard) windowOf(t *testing.T, k tool) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	try := func(suffix string, life time.Duration, done func([]time.Time, *job) bool) []time.Time {
		name := k.slug + suffix
		y.grant(t, name, "backup@acme", k.needs())
		c := &cell{tool: k, way: byEndpoint, yard: y, name: name, path: k.program(t)}
		return c.promised(ctx, t, life, done)
	}
	if k.share > 0 {
		const life = 40 * time.Second
		k.pace = 3 * time.Second
		share := 2.0
		// On a machine that is too busy the tool may have had no request to make
		// in time.
		for n := 0; n < 3 && share > 1; n++ {
			asked := try(fmt.Sprintf("-share-%d", n), life, func(asked []time.Time, _ *job) bool { return len(asked) > 1 })
			share = float64(asked[1].Sub(asked[0])) / float64(life)
		}
		if share < k.share-0.05 || share > 1 {
			t.Errorf("it asked again after %.2f of the life, not after %.2f", share, k.share)
		}
		return fmt.Sprintf("after %.0f %% of what was left when it asked last", k.share*100)
	}
	k.pace = time.Second
	// Its three portions make at least three requests.
	three := func(_ []time.Time, j *job) bool { return j.portions >= 3 && j.tally().requests >= 2 }
	if asked := try("-inside", k.window-time.Minute, three); len(asked) < 2 {
		t.Errorf("with %v left it asked %d times", k.window-time.Minute, len(asked))
	}
	// A machine that is too busy makes a tool repeat a question that was answered
	// too late.
	asked := 0
	for n := 0; n < 3 && asked != 1; n++ {
		asked = len(try(fmt.Sprintf("-outside-%d", n), k.window+time.Minute, three))
	}
	if asked != 1 {
		t.Errorf("with %v left it asked %d times", k.window+time.Minute, asked)
	}
	return fmt.Sprintf("with each request, once less than %.0f minutes are left", k.window.Minutes())
}
