package service

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// supervised is a service in the hands of a test.
type supervised struct {
	requests chan Request
	states   chan State
	ready    chan struct{}
	result   chan error
	ended    chan error
}

func supervise(t *testing.T) *supervised {
	s := &supervised{make(chan Request), make(chan State, 16), make(chan struct{}), make(chan error), make(chan error, 1)}
	go func() {
		s.ended <- Supervise(t.Context(), func(ctx context.Context, ready func()) error {
			select {
			case <-s.ready:
				ready()
				ready()
			case err := <-s.result:
				return err
			case <-ctx.Done():
				return nil
			}
			select {
			case err := <-s.result:
				return err
			case <-ctx.Done():
				return nil
			}
		}, s.requests, func(state State) { s.states <- state })
	}()
	return s
}

// told gives what the manager was told so far.
func (s *supervised) told() []State {
	synctest.Wait()
	var states []State
	for len(s.states) > 0 {
		states = append(states, <-s.states)
	}
	return states
}

func TestSupervise(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		play func(*supervised)
		want []State
		err  error
	}{
		"stopped": {
			func(s *supervised) { s.ready <- struct{}{}; synctest.Wait(); s.requests <- Stop },
			[]State{Starting, Running, Stopping, Stopped}, nil,
		},
		"stopped while starting": {
			func(s *supervised) { s.requests <- Stop },
			[]State{Starting, Stopping, Stopped}, nil,
		},
		"interrogated": {
			func(s *supervised) {
				s.requests <- Interrogate
				s.ready <- struct{}{}
				synctest.Wait()
				s.requests <- Interrogate
				s.requests <- Request(99) // one of a newer system
				s.requests <- Stop
			},
			[]State{Starting, Starting, Running, Running, Stopping, Stopped}, nil,
		},
		"fails to start": {
			func(s *supervised) { s.result <- broken },
			[]State{Starting, Stopped}, broken,
		},
		"fails": {
			func(s *supervised) { s.ready <- struct{}{}; synctest.Wait(); s.result <- broken },
			[]State{Starting, Running, Stopped}, broken,
		},
		"the manager goes": {
			func(s *supervised) { s.ready <- struct{}{}; synctest.Wait(); close(s.requests) },
			[]State{Starting, Running, Stopping, Stopped}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := supervise(t)
				synctest.Wait()
				c.play(s)
				if err := <-s.ended; !errors.Is(err, c.err) {
					t.Errorf("it ended with %v", err)
				}
				if got := s.told(); !slices.Equal(got, c.want) {
					t.Errorf("the manager was told %v, want %v", got, c.want)
				}
			})
		})
	}
}

func TestDefine(t *testing.T) {
	d, err := Define(`C:\Program Files\stoker\stoker-agent.exe`, `C:\ProgramData\stoker\stoker-agent.yaml`)
	if err != nil || d.Name != Name || d.Account != `NT SERVICE\stoker-agent` ||
		!slices.Equal(d.Arguments, []string{"service", "run", "--config", `C:\ProgramData\stoker\stoker-agent.yaml`}) {
		t.Errorf("%+v, %v", d, err)
	}
	for _, paths := range [][2]string{{"stoker-agent.exe", `C:\a.yaml`}, {`C:\a.exe`, "a.yaml"}, {`C:\a.exe`, ""}, {`C:a.exe`, `D:/a`}} {
		if _, err := Define(paths[0], paths[1]); err == nil || !strings.Contains(err.Error(), "absolute path") {
			t.Errorf("%q: %v", paths, err)
		}
	}
}
