//go:build unix

package tools_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// canary watches how an agent is supplied. The broker keeps a credential above a
// third of its lifetime where the machine lets it; on one that is too busy for
// lifetimes of seconds, what a tool does says nothing of the tool.
type canary struct {
	mu   sync.Mutex
	late time.Time // when a credential last was under 3/10 of its lifetime
}

// watch asks the agent for a grant of its own until the test ends.
func watch(t *testing.T, a *agent, grant string, lifetime time.Duration) *canary {
	t.Helper()
	c := &canary{}
	token, err := os.ReadFile(filepath.Join(a.runtime, "stoker-agent", "token"))
	must(t, err)
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Second / 4)
		defer tick.Stop()
		for {
			if left := remaining(a.url+"/"+grant, string(token)); left < lifetime*3/10 {
				c.mu.Lock()
				c.late = time.Now()
				c.mu.Unlock()
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	return c
}

// remaining is how much life the endpoint's answer has; 0 where there is none.
func remaining(url, token string) time.Duration {
	request, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0
	}
	request.Header.Set("Authorization", token)
	began := time.Now()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	var answer struct{ Expiration time.Time }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return 0
	}
	return answer.Expiration.Sub(began)
}

// sang says whether the supply was late since some time.
func (c *canary) sang(began time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.late.After(began)
}
