package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

const (
	// maxSkew is how far the clocks of this machine and the broker's may be
	// apart, beside what the call itself took.
	maxSkew = 5 * time.Second
	// soon is how close to its end a certificate is worth a warning, at most;
	// of one that lives shorter it is a fifth of its life.
	soon = 14 * 24 * time.Hour
)

type doctorCommand struct {
	Grant *member `placeholder:"TENANT/GRANT" help:"Have a credential issued for this grant, try it on the bucket, and throw it away."`
}

// Help is what doctor --help adds.
func (*doctorCommand) Help() string {
	return "Of several replicas it checks the one that answers. Exits with 1 if something does not work, or is open that should not be."
}

func (c *doctorCommand) Run(a *api) error {
	request := &stokerv1.DiagnoseRequest{}
	if c.Grant != nil {
		request.Tenant, request.Grant = c.Grant.tenant, c.Grant.name
	}
	var broker peer.Peer
	asked := time.Now()
	found, err := a.fleet.Diagnose(a.ctx, request, grpc.Peer(&broker))
	if err != nil {
		return err
	}
	answered := time.Now()
	found.Findings = append(found.Findings, a.local(&broker, asked, answered, found.GetTime().AsTime())...)
	if a.json {
		err = a.object(found)
	} else {
		err = a.table([]string{"RESULT", "CHECKED", "FINDING"}, func(row func(...string)) {
			for _, f := range found.GetFindings() {
				row(severityName(f.GetSeverity()), f.GetSubject(), f.GetMessage())
			}
		})
	}
	if err != nil {
		return err
	}
	for _, f := range found.GetFindings() {
		if f.GetSeverity() == stokerv1.FindingSeverity_FINDING_SEVERITY_FATAL {
			return errors.New("something is wrong: see what is marked fatal")
		}
	}
	return nil
}

func severityName(s stokerv1.FindingSeverity) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "FINDING_SEVERITY_"))
}

// local checks what only this end of the connection can.
func (a *api) local(broker *peer.Peer, asked, answered, theirs time.Time) (found []*stokerv1.Finding) {
	add := func(s stokerv1.FindingSeverity, subject, format string, args ...any) {
		found = append(found, &stokerv1.Finding{Severity: s, Subject: subject, Message: fmt.Sprintf(format, args...)})
	}
	// The broker looked at its clock just before it answered.
	skew := theirs.Sub(answered)
	slack := maxSkew + answered.Sub(asked)
	if skew.Abs() > slack {
		add(stokerv1.FindingSeverity_FINDING_SEVERITY_WARNING, "clocks", "the broker's differs from this machine's by %s: set the wrong one right", skew.Abs().Round(time.Second))
	} else {
		add(stokerv1.FindingSeverity_FINDING_SEVERITY_OK, "clocks", "the broker's agrees with this machine's")
	}
	check := func(subject string, cert *x509.Certificate) {
		remaining := time.Until(cert.NotAfter)
		if remaining < min(soon, cert.NotAfter.Sub(cert.NotBefore)/5) {
			add(stokerv1.FindingSeverity_FINDING_SEVERITY_WARNING, subject, "ends in %s: replace it", span(remaining))
			return
		}
		add(stokerv1.FindingSeverity_FINDING_SEVERITY_OK, subject, "in force until %s", at(timestamppb.New(cert.NotAfter)))
	}
	check("your certificate", a.certificate)
	if tls, ok := broker.AuthInfo.(credentials.TLSInfo); ok && len(tls.State.PeerCertificates) > 0 {
		check("certificate shown by the broker", tls.State.PeerCertificates[0])
	}
	return found
}
