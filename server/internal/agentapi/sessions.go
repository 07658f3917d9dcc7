package agentapi

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/message"
)

// Sessions begins and ends sessions; *authn.Authenticator is one.
type Sessions interface {
	CreateSession(ctx context.Context, p authn.Principal) (authn.Session, error)
	EndSession(ctx context.Context, p authn.Principal) error
}

// SessionService implements the service of that name.
type SessionService struct {
	stokerv1.UnsafeSessionServiceServer
	sessions Sessions
}

// NewSessionService makes the service.
func NewSessionService(sessions Sessions) (*SessionService, error) {
	if sessions == nil {
		return nil, errors.New("session service: sessions are required")
	}
	return &SessionService{sessions: sessions}, nil
}

// CreateSession implements the call.
func (s *SessionService) CreateSession(ctx context.Context, _ *stokerv1.CreateSessionRequest) (*stokerv1.CreateSessionResponse, error) {
	p, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	begun, err := s.sessions.CreateSession(ctx, p)
	if err != nil {
		return nil, err
	}
	p.SessionID, p.SessionExpires = begun.ID, begun.Expires
	return &stokerv1.CreateSessionResponse{
		AccessToken: begun.Token.Reveal(), // the one place where it leaves
		ExpireTime:  message.Time(begun.Expires),
		Identity:    message.Identity(p),
	}, nil
}

// GetSession implements the call.
func (s *SessionService) GetSession(ctx context.Context, _ *stokerv1.GetSessionRequest) (*stokerv1.GetSessionResponse, error) {
	p, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	return &stokerv1.GetSessionResponse{Identity: message.Identity(p), ServerTime: timestamppb.New(time.Now())}, nil
}

// DeleteSession implements the call.
func (s *SessionService) DeleteSession(ctx context.Context, _ *stokerv1.DeleteSessionRequest) (*stokerv1.DeleteSessionResponse, error) {
	p, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.sessions.EndSession(ctx, p); err != nil {
		return nil, err
	}
	return &stokerv1.DeleteSessionResponse{}, nil
}
