package clienttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/internal/jointoken"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// certificateLife is how long certificates live that the broker signs for
// agents, unless a test says otherwise.
const certificateLife = 30 * 24 * time.Hour

// desk is what the broker's authority does for agents. The broker's mu guards it.
type desk struct {
	address string
	server  *grpc.Server
	memory  *bufconn.Listener

	tokens  map[string]bool // by text, whether it was used
	life    time.Duration
	refusal *client.Error
	tamper  func(*stokerv1.CertificateBundle)
	signed  int
	asked   int
}

// openDesk opens the enrollment listener. It needs mu.
func (b *Broker) openDesk() {
	b.tb.Helper()
	var inner net.Listener
	if b.settings.inMemory {
		b.desk.address = Host + ":7444"
		b.desk.memory = bufconn.Listen(1 << 20)
		inner = b.desk.memory
	} else {
		l, err := net.Listen("tcp", b.desk.address)
		if err != nil {
			b.tb.Fatalf("clienttest: %v", err)
		}
		b.desk.address, inner = l.Addr().String(), l
	}
	identity := b.identity
	// Agents that know the authority's pin alone need its certificate.
	identity.Certificate = append(append([][]byte{}, identity.Certificate...), b.authority.certificate.Raw)
	server := grpc.NewServer(grpc.Creds(grpccredentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{identity}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
	})))
	b.desk.server = server
	stokerv1.RegisterEnrollmentServiceServer(server, enrollmentService{broker: b})
	b.serving.Go(func() {
		if err := server.Serve(inner); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			b.tb.Errorf("clienttest: serve: %v", err)
		}
	})
}

// Enrollment gives a configuration with which new agents enroll at a broker made
// WithEnrollment, into files of that directory.
func (b *Broker) Enrollment(dir string) client.EnrollConfig {
	b.mu.Lock()
	defer b.mu.Unlock()
	config := client.EnrollConfig{Address: b.desk.address, Files: client.FilesIn(dir)}
	if memory := b.desk.memory; memory != nil {
		config.Dial = func(ctx context.Context, _ string) (net.Conn, error) { return memory.DialContext(ctx) }
	}
	return config
}

// Invite makes a join token for the agent AgentID.
func (b *Broker) Invite() string {
	b.tb.Helper()
	sum := sha256.Sum256(b.authority.certificate.RawSubjectPublicKeyInfo)
	token, err := jointoken.New(hex.EncodeToString(sum[:]))
	if err != nil {
		b.tb.Fatalf("clienttest: %v", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.desk.tokens == nil {
		b.desk.tokens = make(map[string]bool)
	}
	b.desk.tokens[token.Reveal()] = false
	return token.Reveal()
}

// SetCertificateLife sets how long certificates live that are signed from now
// on; without it, 30 days.
func (b *Broker) SetCertificateLife(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.desk.life = d
}

// RefuseCertificates refuses to sign with the error; nil signs again.
func (b *Broker) RefuseCertificates(problem *client.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.desk.refusal = problem
}

// TamperCertificates has answers changed before they are sent, to what no broker
// should answer; nil: no more.
func (b *Broker) TamperCertificates(change func(*stokerv1.CertificateBundle)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.desk.tamper = change
}

// SignedCertificates counts the certificates that were signed for agents.
func (b *Broker) SignedCertificates() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.desk.signed
}

// AskedCertificates counts the requests for certificates that were not refused
// for their token.
func (b *Broker) AskedCertificates() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.desk.asked
}

// AgentCertificate makes a certificate for an agent's identity that lives from
// an hour ago for that long from now, such as a short one, or another agent's.
func (b *Broker) AgentCertificate(id string, life time.Duration) tls.Certificate {
	b.tb.Helper()
	return b.authority.agent(b.tb, id, life)
}

type enrollmentService struct {
	stokerv1.UnsafeEnrollmentServiceServer
	broker *Broker
}

// Enroll implements the call.
func (s enrollmentService) Enroll(_ context.Context, in *stokerv1.EnrollRequest) (*stokerv1.EnrollResponse, error) {
	b := s.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	used, known := b.desk.tokens[in.GetJoinToken()]
	switch {
	case !known:
		return nil, statusOf(*refusal(client.ReasonJoinTokenInvalid, "the join token is not one of this broker's")).Err()
	case used:
		return nil, statusOf(*refusal(client.ReasonJoinTokenUsed, "the join token was used")).Err()
	}
	bundle, failed := b.certify(AgentID, in.GetCertificateRequest())
	if failed != nil {
		return nil, statusOf(*failed).Err()
	}
	b.desk.tokens[in.GetJoinToken()] = true
	return &stokerv1.EnrollResponse{Certificate: bundle}, nil
}

// RenewCertificate implements the call.
func (s enrollmentService) RenewCertificate(ctx context.Context, in *stokerv1.RenewCertificateRequest) (*stokerv1.RenewCertificateResponse, error) {
	b := s.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	from, _ := peer.FromContext(ctx)
	info, ok := from.AuthInfo.(grpccredentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil, statusOf(*refusal(client.ReasonCertificateRequired, "a certificate is needed")).Err()
	}
	bundle, failed := b.certify(info.State.PeerCertificates[0].URIs[0].String(), in.GetCertificateRequest())
	if failed != nil {
		return nil, statusOf(*failed).Err()
	}
	return &stokerv1.RenewCertificateResponse{Certificate: bundle}, nil
}

// certify signs. It needs mu.
func (b *Broker) certify(id string, der []byte) (*stokerv1.CertificateBundle, *client.Error) {
	defer b.note()
	b.desk.asked++
	if b.desk.refusal != nil {
		return nil, b.desk.refusal
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, refusal(client.ReasonCertificateRequestInvalid, err.Error())
	}
	key, ok := request.PublicKey.(*ecdsa.PublicKey)
	if err := request.CheckSignature(); err != nil || !ok {
		return nil, refusal(client.ReasonCertificateRequestInvalid, "it is not signed by an ECDSA key of its own")
	}
	template := agentTemplate(b.tb, id, b.desk.life)
	template.NotBefore = time.Now()
	leaf := b.authority.leaf(b.tb, template, key)
	b.desk.signed++
	bundle := &stokerv1.CertificateBundle{
		CertificatePem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}),
		AuthorityPem:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.authority.certificate.Raw}),
		SpiffeId:       id, Serial: leaf.SerialNumber.Text(16), NotAfter: timestamppb.New(leaf.NotAfter),
	}
	if b.desk.tamper != nil {
		b.desk.tamper(bundle)
	}
	return bundle, nil
}
