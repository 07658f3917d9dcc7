package server_test

import (
	"crypto/rand"
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"

	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/reason"
)

// encryptionKey writes a new encryption key into a file.
func encryptionKey(t *testing.T) string {
	t.Helper()
	key := make([]byte, 32)
	_, err := rand.Read(key)
	wantOK(t, err)
	path := filepath.Join(t.TempDir(), "new.key")
	wantOK(t, os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600))
	return path
}

// rotations are the keys that the audit trail says were replaced.
func rotations(t *testing.T, b *brokertest.Broker) (keys []string) {
	t.Helper()
	records, err := stokerv1.NewAuditServiceClient(b.Admin).ListRecords(t.Context(), &stokerv1.ListRecordsRequest{Events: []string{"key.rotated"}})
	wantOK(t, err)
	for _, r := range records.GetRecords() {
		keys = append(keys, r.GetDetail()["key"])
	}
	return keys
}

// Under another encryption key everything goes on as it was: sessions,
// certificates, the audit chain. The old key opens nothing any more.
func TestReseal(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour).session(t)
	b.Stop()
	old, next := b.Config, encryptionKey(t)
	before, err := server.ListKeys(t.Context(), b.Config)
	wantOK(t, err)

	broken := filepath.Join(t.TempDir(), "broken")
	wantOK(t, os.WriteFile(broken, []byte("not a key"), 0o600))
	if _, err := server.ResealKeys(t.Context(), b.Config, broken); err == nil {
		t.Error("resealed under no key")
	}
	wrong := b.Config
	wrong.EncryptionKeyFile = encryptionKey(t)
	if _, err := server.ResealKeys(t.Context(), wrong, next); err == nil {
		t.Error("resealed with a wrong old key")
	}

	n, err := server.ResealKeys(t.Context(), b.Config, next)
	wantOK(t, err)
	if n != len(before) || n < 4 {
		t.Errorf("%d keys were resealed, there are %d", n, len(before))
	}
	if _, err := server.New(t.Context(), old, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "sealing key is another one") {
		t.Errorf("with the old key: %v", err)
	}
	b.Config.EncryptionKeyFile = next
	b.Restart()
	acme.works(t)
	verified, err := stokerv1.NewAuditServiceClient(b.Admin).Verify(t.Context(), &stokerv1.VerifyRequest{})
	wantOK(t, err)
	if !verified.GetIntact() {
		t.Errorf("the trail: %v", verified)
	}
	if got := rotations(t, b); len(got) != 1 || got[0] != "encryption" {
		t.Errorf("the trail says that %v were replaced", got)
	}
}

// With the encryption key lost, what is not a key is left: the broker starts
// with new ones.
func TestDiscardKeys(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	if n, err := server.DiscardKeys(t.Context(), b.Config); n != 0 || err != nil {
		t.Errorf("with the right key %d were discarded: %v", n, err)
	}
	b.Stop()
	b.Config.EncryptionKeyFile = encryptionKey(t)
	if _, err := server.New(t.Context(), b.Config, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("started with a wrong key")
	}
	n, err := server.DiscardKeys(t.Context(), b.Config)
	wantOK(t, err)
	if n < 4 {
		t.Errorf("%d keys were discarded", n)
	}
	b.Restart()
	b.Admin = b.Dial(b.IssueOperator(brokertest.Operator))
	acme.with(b, b.Certify("acme", "laptop")).works(t) // with the old password
	if got := rotations(t, b); len(got) != 1 {
		t.Errorf("the trail says that %v were replaced", got)
	}
	verified, err := stokerv1.NewAuditServiceClient(b.Admin).Verify(t.Context(), &stokerv1.VerifyRequest{})
	wantOK(t, err)
	if verified.GetIntact() {
		t.Error("the trail verifies, although its key is lost")
	}
}

// With new token keys every session is over, without a restart, and a new login
// is good.
func TestReplaceTokenKeys(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour).session(t)
	acme.works(t)
	wantOK(t, server.ReplaceTokenKeys(t.Context(), b.Config))
	polling.Until(t.Context(), t, "the old token's end", func() bool {
		err := acme.whoami(acme.ctx(t))
		over := apierr.Reason(status.Convert(err)) == reason.TokenInvalid
		if !over {
			wantOK(t, err)
		}
		return over
	})
	acme.session(t).works(t)
	if got := rotations(t, b); len(got) != 1 || got[0] != "token" {
		t.Errorf("the trail says that %v were replaced", got)
	}
}

// A new authority makes the old one's certificates void on both sides, from the
// next start on.
func TestReplaceAuthority(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	before := b.Authority().Pin()
	wantOK(t, server.ReplaceAuthority(t.Context(), b.Config))
	acme.works(t) // until the restart
	b.Restart()
	if b.Authority().Pin() == before {
		t.Fatal("the authority is the old one")
	}
	if err := alert(t, b, b.TLS(acme.cert)); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("who trusts the old authority gets %v", err)
	}
	// Whoever would trust the new one is still not trusted with the old
	// certificate.
	b.Roots = b.Roots.Clone() // connections of before still read the other
	b.Roots.AddCert(b.Authority().Certificate())
	if err := alert(t, b, b.TLS(acme.cert)); err == nil || !strings.Contains(err.Error(), "remote error") {
		t.Errorf("with an old certificate: %v", err)
	}
	b.Admin = b.Dial(b.IssueOperator(brokertest.Operator))
	acme.with(b, b.Certify("acme", "laptop")).works(t)

	own := b.Config
	own.TLS.Certificate = "/etc/stoker/server.pem"
	if err := server.ReplaceAuthority(t.Context(), own); err == nil {
		t.Error("replaced the authority of a broker that has none")
	}
}
