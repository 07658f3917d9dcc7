package agentapi

import (
	"log/slog"

	"google.golang.org/grpc"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/carrier"
	"github.com/stokerd/stoker/server/internal/stream"
)

// streamCall is one call of StreamCredentials.
type streamCall = grpc.BidiStreamingServer[stokerv1.StreamCredentialsRequest, stokerv1.StreamCredentialsResponse]

// conn is the stream.Conn of one call.
type conn struct {
	call streamCall
	carrier.End
}

func newConn(call streamCall, log *slog.Logger) (*conn, error) {
	end, err := carrier.EndOf(call.Context(), log)
	if err != nil {
		return nil, err
	}
	return &conn{call, end}, nil
}

// Send implements stream.Conn.
func (c *conn) Send(m stream.Message) error {
	return c.call.Send(carrier.Message(c.call.Context(), m))
}
