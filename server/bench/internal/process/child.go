package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
)

// failure begins the answer to a command that failed.
const failure = "error: "

// Command carries out one command; what it returns is answered. Lines are not
// allowed in it.
type Command func(ctx context.Context, argument string) (string, error)

// Obey is the child's end: it says that the child is ready, and answers
// commands until the input ends or ctx does. Beside the given commands there
// are those of every child:
//
//	collect         frees all the memory that is not in use
//	cpu-profile F   begins a profile, written into F
//	end-profile     ends it
//	heap-profile F  writes what is in use into F
//	goroutines F    writes where all goroutines are into F
func Obey(ctx context.Context, in io.Reader, out io.Writer, ready Ready, commands map[string]Command) error {
	first, err := json.Marshal(ready)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "%s\n", first); err != nil {
		return err
	}
	own := &profiler{}
	all := map[string]Command{"collect": collect, "cpu-profile": own.begin, "end-profile": own.end, "heap-profile": heap, "goroutines": goroutines}
	for name, c := range commands {
		all[name] = c
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(in); scanner.Scan(); {
			select {
			case lines <- scanner.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, more := <-lines:
			if !more {
				return nil
			}
			if _, err := fmt.Fprintf(out, "%s\n", obey(ctx, all, line)); err != nil {
				return err
			}
		}
	}
}

func obey(ctx context.Context, commands map[string]Command, line string) string {
	name, argument, _ := strings.Cut(line, " ")
	do, known := commands[name]
	if !known {
		return failure + "no such command"
	}
	answer, err := do(ctx, argument)
	if err != nil {
		return failure + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return answer
}

// CollectFormat is how collect answers: live heap, the spans that it lies in,
// stacks and the runtime's own memory in bytes; the number of goroutines.
const CollectFormat = "heap %d in spans of %d, stacks %d, other %d, goroutines %d"

// collect frees what is not in use: twice, because finalizers and pools keep
// things for a round.
func collect(context.Context, string) (string, error) {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return fmt.Sprintf(CollectFormat, m.HeapAlloc, m.HeapInuse, m.StackInuse,
		m.MSpanInuse+m.MCacheInuse+m.BuckHashSys+m.GCSys+m.OtherSys, runtime.NumGoroutine()), nil
}

// profiler writes one CPU profile at a time.
type profiler struct{ file *os.File }

func (p *profiler) begin(_ context.Context, path string) (string, error) {
	if p.file != nil {
		return "", errors.New("a profile is being written")
	}
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return "", errors.Join(err, file.Close())
	}
	p.file = file
	return "began", nil
}

func (p *profiler) end(context.Context, string) (string, error) {
	if p.file == nil {
		return "", errors.New("no profile is being written")
	}
	pprof.StopCPUProfile()
	err := p.file.Close()
	p.file = nil
	return "ended", err
}

func heap(_ context.Context, path string) (string, error) {
	runtime.GC()
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	return "written", errors.Join(pprof.Lookup("heap").WriteTo(file, 0), file.Close())
}

func goroutines(_ context.Context, path string) (string, error) {
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	return "written", errors.Join(pprof.Lookup("goroutine").WriteTo(file, 1), file.Close())
}
