package agentapi

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/enrollment"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
)

// Desk signs agents' certificates.
type Desk interface {
	Enroll(ctx context.Context, token secret.String, request []byte, peer, requestID string) (enrollment.Certificate, error)
	Renew(ctx context.Context, p authn.Principal, request []byte, requestID string) (enrollment.Certificate, error)
}

// enrollments is the EnrollmentService.
type enrollments struct {
	stokerv1.UnsafeEnrollmentServiceServer
	desk Desk
}

// RegisterEnrollment adds the EnrollmentService to a server. Which of its calls
// are served there is for the server's authentication to say.
func RegisterEnrollment(r grpc.ServiceRegistrar, d Desk) {
	stokerv1.RegisterEnrollmentServiceServer(r, enrollments{desk: d})
}

// Enroll gives a new agent its first certificate.
func (e enrollments) Enroll(ctx context.Context, req *stokerv1.EnrollRequest) (*stokerv1.EnrollResponse, error) {
	address := ""
	if from, ok := peer.FromContext(ctx); ok {
		address = from.Addr.String()
	}
	certificate, err := e.desk.Enroll(ctx, secret.New(req.GetJoinToken()), req.GetCertificateRequest(), address, apierr.RequestID(ctx))
	if err != nil {
		return nil, err
	}
	return &stokerv1.EnrollResponse{Certificate: bundle(certificate)}, nil
}

// RenewCertificate gives an agent its next certificate.
func (e enrollments) RenewCertificate(ctx context.Context, req *stokerv1.RenewCertificateRequest) (*stokerv1.RenewCertificateResponse, error) {
	p, ok := authn.PrincipalFrom(ctx)
	if !ok {
		return nil, reason.New(reason.CertificateRequired, "present the agent's certificate")
	}
	certificate, err := e.desk.Renew(ctx, p, req.GetCertificateRequest(), apierr.RequestID(ctx))
	if err != nil {
		return nil, err
	}
	return &stokerv1.RenewCertificateResponse{Certificate: bundle(certificate)}, nil
}

func bundle(c enrollment.Certificate) *stokerv1.CertificateBundle {
	return &stokerv1.CertificateBundle{
		CertificatePem: c.PEM, AuthorityPem: c.AuthorityPEM, SpiffeId: c.SPIFFEID, Serial: c.Serial, NotAfter: timestamppb.New(c.NotAfter),
	}
}
