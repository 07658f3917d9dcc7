package adminapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/policy"
	"github.com/stokerd/stoker/server/internal/secret"
)

func secretOf(text string) secret.String { return secret.New(text) }

func allActions() []string { return policy.Actions() }

// mustTenant gives a tenant's id.
func mustTenant(t *testing.T, c clients, name string) string {
	t.Helper()
	tenant, ok := c.Directory.TenantByName(name)
	if !ok {
		t.Fatalf("no tenant %s", name)
	}
	return tenant.ID
}

// noSecrets looks for texts in the whole trail.
func (c clients) noSecrets(t *testing.T, secrets ...string) {
	t.Helper()
	trail := fmt.Sprintf("%+v", c.Records(t))
	for i, s := range secrets {
		if s == "" {
			t.Errorf("secret %d is empty: the test looks for nothing", i)
		} else if strings.Contains(trail, s) {
			t.Errorf("secret %d is in the trail", i)
		}
	}
}

// newRequest makes a certificate request.
func newRequest(t *testing.T) []byte {
	t.Helper()
	_, der, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	return der
}
