package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Ready is what a child says first.
type Ready struct {
	// Address is where it serves.
	Address string `json:"address"`
	// Operations is where its metrics are, if it has any.
	Operations string `json:"operations,omitempty"`
}

// Process is a running child. Its methods are safe for concurrent use.
type Process struct {
	Ready
	cmd   *exec.Cmd
	log   string
	input io.WriteCloser

	// turn is held from a command to its answer.
	turn    sync.Mutex
	answers chan string
	ended   chan struct{}
	err     error // why it ended; set before ended is closed
}

// Spec says what to run.
type Spec struct {
	// Program is run with Args, in this environment.
	Program     string
	Args        []string
	Environment []string
	// Log is the file that takes its standard error, appended to.
	Log string
}

// startLimit bounds how long a child takes until it is ready.
const startLimit = 2 * time.Minute

// Start starts a child and waits until it is ready.
func Start(ctx context.Context, s Spec) (*Process, error) {
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()        // the child has its own descriptor
	cmd := exec.Command(s.Program, s.Args...) //nolint:gosec // our own executable
	cmd.Env, cmd.Stderr = s.Environment, log
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, log: s.Log, input: input, answers: make(chan string, 1), ended: make(chan struct{})}
	go p.listen(output)
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	first, err := p.answer(ctx)
	if err == nil {
		err = json.Unmarshal([]byte(first), &p.Ready)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s does not start: %w", s.Program, err), p.Kill())
	}
	return p, nil
}

// listen passes answers on until the child ends.
func (p *Process) listen(output io.Reader) {
	for lines := bufio.NewScanner(output); lines.Scan(); {
		select {
		case p.answers <- lines.Text():
		default: // whoever asked has left, and asks nothing more
		}
	}
	p.err = p.cmd.Wait()
	close(p.ended)
}

func (p *Process) answer(ctx context.Context) (string, error) {
	select {
	case line := <-p.answers:
		return line, nil
	case <-p.ended:
		return "", p.fault()
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// fault says how the child ended, with the end of what it logged.
func (p *Process) fault() error {
	err := p.err
	if err == nil {
		err = errors.New("it has ended")
	}
	text, readErr := os.ReadFile(p.log)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("%w; it last said:\n%s", err, strings.Join(lines[max(0, len(lines)-5):], "\n"))
}

// Ask has the child carry out a command and gives its answer. After an error of
// ctx the child must not be asked again: its answer may still come.
func (p *Process) Ask(ctx context.Context, command string) (string, error) {
	p.turn.Lock()
	defer p.turn.Unlock()
	if _, err := io.WriteString(p.input, command+"\n"); err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	line, err := p.answer(ctx)
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	if said, failed := strings.CutPrefix(line, failure); failed {
		return "", fmt.Errorf("%s: %s", command, said)
	}
	return line, nil
}

// ID is the child's process id.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Ended is closed when the child has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Stop lets the child end in its own way, and kills it when ctx ends first.
func (p *Process) Stop(ctx context.Context) error {
	_ = p.input.Close() // it may have ended
	select {
	case <-p.ended:
		return p.err
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("it does not stop: %w", ctx.Err()), p.Kill())
	}
}

// Kill ends the child at once, as a crash does, and waits for its end.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.ended
	return nil
}
