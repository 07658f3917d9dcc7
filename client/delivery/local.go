package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/stokerd/stoker/client"
)

// ErrNoAgent is returned where no agent serves.
var ErrNoAgent = errors.New("no agent is running")

// errStranger is returned where an agent's place is in somebody else's hands, who
// is not asked: for this user no agent is running.
var errStranger = fmt.Errorf("%w: what serves there is another user's", ErrNoAgent)

// longestAnswer bounds, in bytes, what is read of an agent's answer. The status
// of a hundred grants is the longest.
const longestAnswer = 1 << 20

// Local serves a supply to this program's own subcommands, on a Unix socket or a
// Windows named pipe. There is no token: nobody else can connect. The socket is
// in a directory that its owner alone may enter, and the pipe's access control
// list names its owner and, like root, the administrators.
type Local struct {
	site  site
	paths *http.ServeMux
}

// ListenLocal starts serving at a place: a socket's file or, on Windows, a pipe's
// name, which begins with \\.\pipe\. Where another agent serves, it fails; a
// socket that a dead one left is replaced. Close it when done. A nil logger logs
// nothing.
func ListenLocal(place string, supply Supply, log *slog.Logger) (*Local, error) {
	listener, err := listenOwner(place)
	if err != nil {
		return nil, err
	}
	l := &Local{paths: http.NewServeMux()}
	l.paths.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { serveCredential(w, r, supply, nil) })
	l.site.serve(listener, l.paths, quiet(log))
	return l, nil
}

// Handle serves something else too at a path, for AskLocalFor. The agent's user
// alone can ask, and sees all that the handler shows.
func (l *Local) Handle(path string, handler http.Handler) { l.paths.Handle(path, handler) }

// Close stops serving, removes the socket and waits for the goroutines.
func (l *Local) Close() error { return l.site.close() }

// AskLocal asks the agent at a place for a grant's credential with at least that
// much life left. ErrNoAgent means that there is none; a Refusal is its answer
// without a credential. The credential has the keys and the expiry, and no more.
// Where somebody else has put a server in the agent's place, it is not asked.
func AskLocal(ctx context.Context, place, grant string, minLife time.Duration) (client.Credential, error) {
	u := url.URL{Path: path, RawQuery: url.Values{"min_ttl": {minLife.String()}}.Encode()}
	if grant != "" {
		u.Path += "/" + grant
	}
	status, body, err := getLocal(ctx, place, u)
	if err != nil {
		return client.Credential{}, err
	}
	return readAnswer(status, grant, body)
}

// AskLocalFor asks the agent at a place for what Handle serves at a path. The
// errors are AskLocal's.
func AskLocalFor(ctx context.Context, place, path string) ([]byte, error) {
	status, body, err := getLocal(ctx, place, url.URL{Path: path})
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, readRefusal(status, body)
	}
	return body, nil
}

// getLocal makes one request on a connection of its own.
func getLocal(ctx context.Context, place string, u url.URL) (status int, body []byte, err error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialOwner(ctx, place)
		},
	}
	u.Scheme, u.Host = "http", "agent"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := (&http.Client{Transport: transport, Timeout: requestTimeout}).Do(request)
	if err != nil {
		var wrapper *url.Error
		if errors.Is(err, ErrNoAgent) && errors.As(err, &wrapper) {
			return 0, nil, wrapper.Err // the URL is of no use to anybody
		}
		return 0, nil, fmt.Errorf("the agent does not answer: %w", err)
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, longestAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("the agent's answer: %w", err)
	}
	return response.StatusCode, body, nil
}

// readRefusal reads an answer that is none.
func readRefusal(status int, body []byte) error {
	f := Refusal{status: status}
	if err := json.Unmarshal(body, &f); err != nil {
		return fmt.Errorf("the agent's answer %d: %w", status, err)
	}
	return f
}

func readAnswer(status int, grant string, body []byte) (client.Credential, error) {
	if status != http.StatusOK {
		return client.Credential{}, readRefusal(status, body)
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
