package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/stokerd/stoker/client"
)

// ErrNoAgent is returned where no agent listens on a socket.
var ErrNoAgent = errors.New("no agent is running")

// longestAnswer bounds, in bytes, what is read of an agent's answer.
const longestAnswer = 64 << 10

// Local serves a supply on a Unix socket, for this program's own subcommands.
// There is no token: the socket is in a directory that its owner alone may
// enter.
type Local struct {
	server  *http.Server
	serving sync.WaitGroup
	failed  error // read after serving
}

// ListenLocal starts serving on a socket. Where another agent does, it fails; a
// socket that a dead one left is replaced. Close it when done. A nil logger logs
// nothing.
func ListenLocal(socket string, supply Supply, log *slog.Logger) (*Local, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := checkDirectory(filepath.Dir(socket)); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := clearSocket(socket); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), listener.Close())
	}
	l := &Local{server: newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serveCredential(w, r, supply, nil)
	}), log)}
	l.server.ConnState = newCrowd(mostConnections).observe
	l.serving.Go(func() { l.failed = l.server.Serve(listener) })
	return l, nil
}

// clearSocket removes a socket on which nobody listens.
func clearSocket(socket string) error {
	info, err := os.Lstat(socket)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 && !isSocketElsewhere(info) {
		return fmt.Errorf("%s is there and no socket: remove it, or choose another place", socket)
	}
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("another agent is serving on %s: stop it, or choose another place", socket), conn.Close())
	}
	return os.Remove(socket)
}

// Close stops serving, removes the socket and waits for the goroutines.
func (l *Local) Close() error {
	err := l.server.Close()
	l.serving.Wait()
	if errors.Is(l.failed, http.ErrServerClosed) {
		return err
	}
	return errors.Join(err, l.failed)
}

// AskLocal asks the agent on a socket for a grant's credential with at least that
// much life left. ErrNoAgent means that there is none; a Refusal is its answer
// without a credential. The credential has the keys and the expiry, and no more.
func AskLocal(ctx context.Context, socket, grant string, minLife time.Duration) (client.Credential, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}
	u := url.URL{Scheme: "http", Host: "agent", Path: path, RawQuery: url.Values{"min_ttl": {minLife.String()}}.Encode()}
	if grant != "" {
		u.Path += "/" + grant
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return client.Credential{}, err
	}
	response, err := (&http.Client{Transport: transport, Timeout: requestTimeout}).Do(request)
	if err != nil {
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			return client.Credential{}, fmt.Errorf("%w: %w", ErrNoAgent, dial)
		}
		return client.Credential{}, fmt.Errorf("the agent does not answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, longestAnswer))
	if err != nil {
		return client.Credential{}, fmt.Errorf("the agent's answer: %w", err)
	}
	return readAnswer(response.StatusCode, grant, body)
}

func readAnswer(status int, grant string, body []byte) (client.Credential, error) {
	if status != http.StatusOK {
		f := Refusal{status: status}
		if err := json.Unmarshal(body, &f); err != nil {
			return client.Credential{}, fmt.Errorf("the agent's answer %d: %w", status, err)
		}
		return client.Credential{}, f
	}
	var answer credentialAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		return client.Credential{}, fmt.Errorf("the agent's answer: %w", err)
	}
	expires, err := time.Parse(time.RFC3339, answer.Expiration)
	if err != nil || answer.AccessKeyID == "" || answer.SecretAccessKey == "" || answer.Token == "" {
		return client.Credential{}, errors.New("the agent's answer is not whole")
	}
	return client.Credential{
		Grant: grant, AccessKeyID: answer.AccessKeyID, SecretAccessKey: answer.SecretAccessKey,
		SessionToken: answer.Token, Expires: expires,
	}, nil
}
