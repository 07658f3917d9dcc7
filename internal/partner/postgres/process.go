package postgres

import (
	"os"
	"os/exec"
	"runtime"
)

// process is a running program.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
	err   error         // why; read after ended
}

// startProcess starts the program from a thread that lives until it ends:
// where the system can, it ends the program with that thread, and so leaves
// nothing behind when a test is killed.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) signal(s os.Signal) error { return p.cmd.Process.Signal(s) }
