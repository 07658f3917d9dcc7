//go:build unix

package tools_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/stokerd/stoker/internal/transcript"
)

// cell is one tool that is given credentials in one way.
type cell struct {
	tool
	way
	*yard
	name string // also its grant's, and its prefix without the slash
	path string // of the program
	home string
	run  int // how often it was started
	// grantName is another grant for the prefix; empty: name.
	grantName string
	agent     *agent
	holding   []string // stoker-agent's settings, for exec
}

func cellName(k tool, w way) string { return k.slug + "-" + wayTexts[w].slug }

// values fill the placeholders.
func (c *cell) values(t *testing.T) map[string]string {
	t.Helper()
	v := map[string]string{
		"program": c.path, "tools": toolsDir(t), "home": c.home,
		"s3": c.gate.URL, "s3_host": strings.TrimPrefix(c.gate.URL, "http://"),
		"bucket": bucket, "prefix": c.name + "/", "grant": cmp.Or(c.grantName, c.name), "run": strconv.Itoa(c.run),
	}
	if c.agent != nil {
		file := filepath.Join(c.agent.runtime, "stoker-agent", "token")
		token, err := os.ReadFile(file)
		must(t, err)
		v["endpoint"], v["token"], v["token_file"] = c.agent.url, string(token), file
	}
	return v
}

// given are the settings of the cell's way.
func (c *cell) given() settings {
	if special, ok := c.special[c.way]; ok {
		return special
	}
	return settingsOf[c.way]
}

// prepare makes the home in which the tool runs.
func (c *cell) prepare(t *testing.T) {
	t.Helper()
	c.home = c.yard.path("homes", c.name)
	c.run++
	must(t, os.RemoveAll(c.home))
	must(t, os.MkdirAll(filepath.Join(c.home, ".aws"), 0o700))
	g, v := c.given(), c.values(t)
	if g.config != "" {
		c.write(t, filepath.Join("homes", c.name, ".aws", "config"), []byte(fill(g.config, v)))
	}
	credentials := filepath.Join(c.home, ".aws", "credentials")
	switch {
	case g.credentials != "":
		must(t, os.WriteFile(credentials, []byte(fill(g.credentials, v)), 0o600))
	case c.way == byFile:
		must(t, os.Symlink(c.agent.file, credentials))
	}
}

// shell prepares a command line of the tool, with the cell's settings.
func (c *cell) shell(ctx context.Context, t *testing.T, line string) *exec.Cmd {
	t.Helper()
	g, v := c.given(), c.values(t)
	cmd := exec.CommandContext(ctx, "sh", "-c", fill(g.wrap+line, v))
	cmd.Dir = c.home
	cmd.Env = append(clean(c.home), "PATH="+programs+":"+os.Getenv("PATH"))
	for _, e := range append(append([]string{}, c.env...), g.env...) {
		cmd.Env = append(cmd.Env, fill(e, v))
	}
	cmd.Env = append(cmd.Env, c.holding...)
	if c.agent != nil {
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+c.agent.runtime)
	}
	// Its children must not outlive it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// job is a run of the tool that goes on until its input ends.
type job struct {
	cell   *cell
	output transcript.Transcript
	input  io.WriteCloser
	fed    chan struct{} // receives when a portion has been taken
	ended  chan struct{}
	err    error     // read after ended
	at     time.Time // when it ended; read after ended
	killed bool
	kill   context.CancelFunc

	content          hash.Hash // of all portions
	began            time.Time
	portions, issued int
	before           int // portions that were given before the last keys ended
	last             time.Time
}

// start runs the preparing commands, then the tool. Where a preparing command
// fails there is no job, but its output.
func (c *cell) start(ctx context.Context, t *testing.T) (*job, string) {
	t.Helper()
	c.prepare(t)
	preparing, enough := context.WithTimeout(ctx, 2*time.Minute)
	defer enough()
	for _, one := range c.before {
		line := one.line + " " + one.here
		if out, err := c.shell(preparing, t, line).CombinedOutput(); err != nil {
			return nil, fmt.Sprintf("%s: %v\n%s", line, err, out)
		}
	}
	ctx, kill := context.WithCancel(ctx)
	j := &job{cell: c, fed: make(chan struct{}, 1), ended: make(chan struct{}), kill: kill, began: time.Now(), content: sha256.New()}
	cmd := c.shell(ctx, t, c.command.line+" "+c.command.here)
	cmd.Stdout, cmd.Stderr = &j.output, &j.output
	var err error
	j.input, err = cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	go func() {
		defer close(j.ended)
		j.err = cmd.Wait()
		j.at = time.Now()
	}()
	t.Cleanup(func() {
		kill()
		<-j.ended
	})
	j.fed <- struct{}{}
	return j, ""
}

// feed gives the tool more to do, once a new credential has come or its pace
// says so, unless it is still busy with the last portion.
func (j *job) feed() {
	issued := j.tally().issued
	if issued == j.issued && time.Since(j.last) < j.cell.pace {
		return
	}
	select {
	case <-j.fed:
	default:
		return
	}
	j.issued, j.last = issued, time.Now()
	j.portions++
	portion := []byte(fmt.Sprintf("%s/object-%d\n", j.cell.name, j.portions))
	if n := j.cell.portion; n > 0 {
		portion = make([]byte, n)
		source := rand.NewChaCha8([32]byte{byte(j.portions)})
		_, _ = source.Read(portion)
	}
	_, _ = j.content.Write(portion)
	go func() {
		// It may have ended; its exit code tells.
		_, _ = j.input.Write(portion)
		j.fed <- struct{}{}
	}()
}

// over says whether the tool has ended.
func (j *job) over() bool {
	select {
	case <-j.ended:
		return true
	default:
		return false
	}
}

// said is what is known of the tool, for whoever reads of a failure.
func (j *job) said() string {
	ending := "still running"
	if j.over() {
		ending = fmt.Sprintf("ended with %v", j.err)
	}
	return fmt.Sprintf("%+v, %d portions, killed %v, %s, and said:\n%s", j.tally(), j.portions, j.killed, ending, &j.output)
}

// compare looks at what the multipart upload left.
func (j *job) compare(ctx context.Context, t *testing.T) {
	t.Helper()
	out, err := j.cell.owner().GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(j.cell.name + "/stream")})
	must(t, err)
	defer out.Body.Close()
	stored := sha256.New()
	n, err := io.Copy(stored, out.Body)
	must(t, err)
	if !bytes.Equal(stored.Sum(nil), j.content.Sum(nil)) {
		t.Errorf("%d bytes were stored, and are not the %d portions", n, j.portions)
	}
	// The entity tag of a multipart upload ends with the number of its parts.
	if _, parts, _ := strings.Cut(strings.Trim(aws.ToString(out.ETag), `"`), "-"); parts == "" || parts == "1" {
		t.Errorf("it was no multipart upload: %s", aws.ToString(out.ETag))
	}
}

// finish ends the tool's input, once it has taken the last portion, and waits for
// its end.
func (j *job) finish(patience time.Duration) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-j.fed:
	case <-j.ended:
	case <-timer.C:
	}
	_ = j.input.Close()
	j.await(patience)
}

// await waits for the tool's end, and kills it when patience is over.
func (j *job) await(patience time.Duration) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-j.ended:
	case <-timer.C:
		j.killed = true
		j.kill()
		<-j.ended
	}
}

// sets is how many sets of keys a tool that refreshes is watched to use in one
// run: they change three times.
const sets = 4

// stale says whether the tool has had enough to do since its last keys ended to
// show what it does without.
func (j *job) stale(end time.Time) bool {
	if time.Now().Before(end) {
		j.before = j.portions
		return false
	}
	return j.portions >= j.before+2 && time.Since(end) > linger/2 || time.Since(end) > linger
}

// linger is how long a tool may go on once its keys are over and it has no more
// to do.
const linger = 20 * time.Second

// observe runs the tool until it has used so many sets of keys, or has failed, or
// the first keys are over and it has no others.
func (c *cell) observe(ctx context.Context, t *testing.T, sets int) (outcome, string) {
	t.Helper()
	j, failed := c.start(ctx, t)
	if j == nil {
		if c.gate.tally(c.name+"/", time.Time{}).requests == 0 {
			return takesNone, failed
		}
		return broken, failed
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !j.over() {
		sum := j.tally()
		if sum.used >= sets {
			j.finish(time.Minute)
			break
		}
		if sum.used > 0 && j.stale(sum.end) {
			j.finish(linger)
			break
		}
		j.feed()
		select {
		case <-ctx.Done():
			j.kill()
		case <-j.ended:
		case <-tick.C:
		}
	}
	<-j.ended
	sum := j.tally()
	said := j.said()
	switch {
	case ctx.Err() != nil:
		return broken, said
	case j.killed && sum.used == 1 && sum.expired > 0:
		return persists, said
	case j.killed:
		return broken, said
	case j.err == nil && sum.used >= sets && sum.expired == 0:
		if c.uploads {
			j.compare(ctx, t)
		}
		return refreshes, said
	case j.err != nil && sum.used == 1 && time.Now().After(sum.end):
		return keeps, said
	case j.err != nil && sum.requests == 0:
		return takesNone, said
	}
	return broken, said
}
