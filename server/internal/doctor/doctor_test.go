package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a provider with one account on a local STS, which answers listings
// of buckets as S3 does.
type world struct {
	sts       *devsts.Server
	doctor    *Doctor
	locations map[string]storage.Location
	tenant    storage.Tenant
	// records are what the trail got; away is why it takes none.
	mu      sync.Mutex
	records []storage.AuditRecord
	away    error
}

func (w *world) Location(id string) (storage.Location, bool) {
	l, ok := w.locations[id]
	return l, ok
}

func (w *world) Locations() (all []storage.Location) {
	for _, l := range w.locations {
		all = append(all, l)
	}
	return all
}

func (w *world) Append(_ context.Context, r storage.AuditRecord, _ int64) (storage.AuditRecord, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away != nil {
		return r, w.away
	}
	w.records = append(w.records, r)
	return r, nil
}

func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	user := devsts.NewUser("stoker")
	sts, err := devsts.Start(devsts.Config{Users: []devsts.User{user}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sts.Close() })
	account, err := issuer.New(t.Context(), issuer.Account{
		Name: "main", Method: issuer.FederationToken, Region: "us-east-1", Endpoint: sts.URL(), Credentials: aws.CredentialsProvider(user),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	w := &world{sts: sts, locations: map[string]storage.Location{}, tenant: storage.Tenant{Meta: storage.Meta{ID: uuid.NewString()}, Name: "acme"}}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c := Config{
		Certificates: func() []pki.Status { return nil }, Directory: w, Trail: w, Client: &http.Client{Transport: transport},
		Accounts: map[string]Account{"main": {
			Issuer: account, Check: account.Check, Keys: account.Keys(), Endpoint: sts.URL(), Lifetime: account.Account().MinLifetime,
		}},
	}
	for _, ch := range change {
		ch(&c)
	}
	w.doctor = New(c)
	w.location("frankfurt", sts.URL())
	return w
}

func (w *world) location(name, endpoint string) {
	w.locations[name] = storage.Location{Meta: storage.Meta{ID: name}, Name: name, Account: "main", Bucket: "backups-of-" + name, Region: "us-east-1", Endpoint: endpoint}
}

func newGrant() storage.Grant {
	return storage.Grant{
		Meta: storage.Meta{ID: uuid.NewString()}, Name: "nightly", LocationID: "frankfurt", Prefix: "acme/", Access: "backup", Lifetime: time.Hour,
	}
}

// lines writes findings as "severity subject: message".
func lines(findings []Finding) (out []string) {
	for _, f := range findings {
		out = append(out, fmt.Sprintf("%s %s: %s", f.Severity, f.Subject, f.Message))
	}
	return out
}

func wantLines(t *testing.T, got []Finding, want ...string) {
	t.Helper()
	shown := lines(got)
	if len(shown) != len(want) {
		t.Fatalf("found\n%s\nwant %d", strings.Join(shown, "\n"), len(want))
	}
	for i := range want {
		if !strings.Contains(shown[i], want[i]) {
			t.Errorf("found %q, want %q in it", shown[i], want[i])
		}
	}
}

func (w *world) try(t *testing.T, g storage.Grant) []Finding {
	t.Helper()
	found, err := w.doctor.Try(t.Context(), storage.AuditRecord{Actor: "spiffe://test/operator/ann"}, w.tenant, g)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestTry(t *testing.T) {
	w := newWorld(t)
	found := w.try(t, newGrant())
	wantLines(t, found,
		"ok grant acme/nightly: the STS issues for it: a policy of", `ok grant acme/nightly: its credential lists the keys under "acme/"`,
		`ok grant acme/nightly: its credential lists nothing outside of "acme/"`)
	if len(w.records) != 1 {
		t.Fatalf("%d records", len(w.records))
	}
	r := w.records[0]
	if r.Event != "account.tried" || r.Actor != "spiffe://test/operator/ann" || r.Tenant != "acme" || r.Grant != "nightly" || r.Account != "main" ||
		!strings.HasPrefix(r.SessionName, "stoker-try-") || r.PolicyHash == "" || r.Expires.IsZero() {
		t.Errorf("record %+v", r)
	}
	if calls := w.sts.Calls(); calls["GetFederationToken"] != 1 || calls["ListObjectsV2"] != 3 {
		t.Errorf("calls %v", calls)
	}
}

func TestTryWhatGoesWrong(t *testing.T) {
	t.Run("the STS refuses", func(t *testing.T) {
		w := newWorld(t, func(c *Config) {
			a := c.Accounts["main"]
			a.Issuer = fixedIssuer{err: &issuer.Error{
				Kind: issuer.Permanent, Code: "AccessDenied", Message: "User: x is not authorized to perform: sts:TagSession on resource: y",
			}}
			c.Accounts = map[string]Account{"main": a}
		})
		wantLines(t, w.try(t, newGrant()),
			"fatal grant acme/nightly: the STS issues nothing for it: AccessDenied: User: x is not authorized to perform: sts:TagSession on resource: y; allow sts:TagSession")
		if len(w.records) != 1 {
			t.Errorf("%d records", len(w.records))
		}
	})
	t.Run("no policy can be made", func(t *testing.T) {
		w := newWorld(t)
		g := newGrant()
		g.Prefix = "acme"
		wantLines(t, w.try(t, g), "fatal grant acme/nightly: no session policy can be made of it")
		if len(w.records) > 0 || len(w.sts.Calls()) > 0 {
			t.Error("the STS was asked")
		}
	})
	t.Run("no location", func(t *testing.T) {
		w := newWorld(t)
		g := newGrant()
		g.LocationID = "nowhere"
		wantLines(t, w.try(t, g), "fatal grant acme/nightly: its location does not exist")
	})
	t.Run("no account", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Accounts = nil })
		wantLines(t, w.try(t, newGrant()), `fatal grant acme/nightly: its location names the account "main"`)
	})
	t.Run("disabled", func(t *testing.T) {
		w := newWorld(t)
		g := newGrant()
		g.Disabled = true
		if found := w.try(t, g); found[0].Severity != Note || len(found) != 4 {
			t.Errorf("found %q", lines(found))
		}
	})
	t.Run("no S3 is known", func(t *testing.T) {
		w := newWorld(t)
		w.location("frankfurt", "")
		wantLines(t, w.try(t, newGrant()), "ok grant acme/nightly: the STS issues", "note grant acme/nightly: is not tried on the bucket")
	})
	t.Run("S3 is away", func(t *testing.T) {
		w := newWorld(t)
		w.location("frankfurt", "http://127.0.0.1:1")
		wantLines(t, w.try(t, newGrant()), "ok grant", "warning grant acme/nightly: its credential cannot be tried on the bucket: S3 cannot be reached")
	})
	t.Run("the trail is away", func(t *testing.T) {
		w := newWorld(t)
		w.away = reason.New(reason.AuditUnavailable, "away")
		_, err := w.doctor.Try(t.Context(), storage.AuditRecord{}, w.tenant, newGrant())
		if !reason.Is(err, reason.AuditUnavailable) || len(w.sts.Calls()) > 0 {
			t.Errorf("%v, calls %v", err, w.sts.Calls())
		}
	})
}

// s3 is an S3 that answers by bucket and query.
func s3(t *testing.T, answer func(bucket string, r *http.Request) (status int, body string)) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ") {
			t.Error("a call without a signature")
		}
		status, body := answer(strings.Trim(r.URL.Path, "/"), r)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func denied() (int, string) { return 403, "<Error><Code>AccessDenied</Code></Error>" }

func TestTryOnBucketsThatAreNotAsTheyShouldBe(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(prefix string) (int, string)
		want   string
	}{
		"open to everybody":      {func(string) (int, string) { return 200, "<ListBucketResult/>" }, "fatal grant acme/nightly: its credential lists the whole bucket, which its session policy does not allow"},
		"closed to the role":     {func(string) (int, string) { return denied() }, `fatal grant acme/nightly: its credential may not list "acme/" although`},
		"not there":              {func(string) (int, string) { return 404, "<Error><Code>NoSuchBucket</Code></Error>" }, `fatal grant acme/nightly: its credential cannot list "acme/" in the bucket backups-of-frankfurt: S3 answers "NoSuchBucket"`},
		"in another region":      {func(string) (int, string) { return 301, "<Error><Code>PermanentRedirect</Code></Error>" }, `S3 answers "PermanentRedirect"`},
		"behind something else":  {func(string) (int, string) { return 502, "<html>" }, "S3 answers with HTTP status 502"},
		"open beside the prefix": {neighborly, `fatal grant acme/nightly: its credential lists the foreign prefix "acme-stoker-try/"`},
		"odd outside": {func(prefix string) (int, string) {
			if prefix == "acme/" {
				return 200, ""
			}
			return 500, ""
		}, "warning grant acme/nightly: whether its credential lists the whole bucket cannot be found out"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.location("frankfurt", s3(t, func(_ string, r *http.Request) (int, string) { return c.answer(r.URL.Query().Get("prefix")) }))
			found := lines(w.try(t, newGrant()))
			if !strings.Contains(found[len(found)-1], c.want) {
				t.Errorf("found %q, want %q", found, c.want)
			}
		})
	}
}

// neighborly is a policy for "acme*" where "acme/*" was meant.
func neighborly(prefix string) (int, string) {
	if strings.HasPrefix(prefix, "acme") {
		return 200, ""
	}
	return denied()
}

func TestPackedSize(t *testing.T) {
	for packed, want := range map[int]string{0: "ok x: the STS issues for it", 89: "ok x", 90: "warning x: policy and tags take 90 %"} {
		w := newWorld(t, func(c *Config) {
			a := c.Accounts["main"]
			a.Issuer = fixedIssuer{credential: issuer.Credential{PackedPolicySize: packed, SecretAccessKey: secret.New("x")}}
			c.Accounts = map[string]Account{"main": a}
		})
		w.location("frankfurt", "")
		found := w.try(t, newGrant())
		found[0].Subject = "x"
		if got := lines(found)[0]; !strings.HasPrefix(got, want) {
			t.Errorf("%d %%: %q", packed, got)
		}
	}
}

type fixedIssuer struct {
	credential issuer.Credential
	err        error
}

func (f fixedIssuer) Issue(context.Context, issuer.Request) (issuer.Credential, error) {
	return f.credential, f.err
}

func TestExamine(t *testing.T) {
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	w := newWorld(t, func(c *Config) {
		c.Conditions = []Condition{
			{"storage", func(context.Context) error { return nil }},
			{"audit trail", func(context.Context) error { return errors.New("the disk is full") }},
		}
		c.Certificates = func() []pki.Status {
			return []pki.Status{
				{Name: "server certificate", Expires: in(24 * time.Hour)}, {Name: "client authorities", Expires: in(1000 * time.Hour), NextUpdate: in(time.Hour)},
				{Name: "old", Expires: in(-time.Hour)}, {Name: "broken", Err: errors.New("no PEM")},
			}
		}
	})
	w.locations = nil
	found, err := w.doctor.Examine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, found,
		"ok storage: works", "fatal audit trail: does not work, so nothing is issued: the disk is full",
		"warning server certificate: the earliest ends in 24h", "ok client authorities: in force until", "ok client authorities: the revocation list is due",
		"fatal old: the earliest ended on", "warning broken: no PEM",
		"note account main: calls STS as arn:aws:iam::", "ok account main: nothing speaks against its keys")
}

func TestExamineAccounts(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		a := c.Accounts["main"]
		a.Check = func(context.Context) ([]issuer.Finding, error) {
			return []issuer.Finding{{Severity: issuer.Warning, Message: "the clock"}, {Severity: issuer.Fatal, Message: "the key"}}, nil
		}
		a.Keys = credentials.NewStaticCredentialsProvider("", "", "")
		c.Accounts = map[string]Account{"main": a}
	})
	w.location("paris", w.sts.URL())
	found, err := w.doctor.Examine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, found, "warning account main: the clock", "fatal account main: the key", "note account main: policies of its buckets are not looked at")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newWorld(t).doctor.Examine(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller left: %v", err)
	}
}

func TestBucketPolicies(t *testing.T) {
	w := newWorld(t)
	endpoint := s3(t, func(bucket string, r *http.Request) (int, string) {
		if !r.URL.Query().Has("policy") {
			t.Errorf("asked for %s", r.URL)
		}
		switch bucket {
		case "backups-of-none":
			return 404, "<Error><Code>NoSuchBucketPolicy</Code></Error>"
		case "backups-of-gone":
			return 404, "<Error><Code>NoSuchBucket</Code></Error>"
		case "backups-of-private":
			return denied()
		case "backups-of-odd":
			return 200, "[]"
		case "backups-of-away":
			return 503, ""
		case "backups-of-named":
			return 200, `{"Statement":{"Sid":"x","Effect":"Allow","Principal":{"AWS":"arn:aws:sts::1:federated-user/bob"}}}`
		}
		return 200, `{"Statement":[]}`
	})
	delete(w.locations, "frankfurt")
	for _, name := range []string{"none", "gone", "private", "odd", "away", "named", "quiet"} {
		w.location(name, endpoint)
	}
	w.location("again", endpoint)
	again := w.locations["again"]
	again.Bucket = "backups-of-quiet"
	w.locations["again"] = again
	w.location("orphan", endpoint)
	orphan := w.locations["orphan"]
	orphan.Account = "gone"
	w.locations["orphan"] = orphan
	w.location("unknown", "")
	found, err := w.doctor.Examine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found = slices.DeleteFunc(found, func(f Finding) bool { return strings.HasPrefix(f.Subject, "account") })
	wantLines(t, found,
		"warning bucket backups-of-away: its policy cannot be read: S3 answers with HTTP status 503",
		"fatal bucket backups-of-gone: does not exist in us-east-1",
		`warning bucket backups-of-named: statement 1 ("x") of its policy names the session "arn:aws:sts::1:federated-user/bob"`,
		"ok bucket backups-of-none: has no policy",
		"warning bucket backups-of-odd: its policy cannot be understood",
		`fatal location orphan: names the account "gone"`,
		"note bucket backups-of-private: its policy may not be read",
		"ok bucket backups-of-quiet: its policy names no session",
		"note bucket backups-of-unknown: is not looked at")
}

func TestManyBuckets(t *testing.T) {
	w := newWorld(t)
	endpoint := s3(t, func(string, *http.Request) (int, string) { return 200, `{"Statement":[]}` })
	w.locations = map[string]storage.Location{}
	for i := range maxBuckets + 5 {
		w.location(fmt.Sprint("b", i), endpoint)
	}
	found, err := w.doctor.Examine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	buckets := slices.DeleteFunc(found, func(f Finding) bool { return !strings.HasPrefix(f.Subject, "bucket ") })
	if len(buckets) != maxBuckets {
		t.Errorf("%d buckets were looked at", len(buckets))
	}
}

func TestJudge(t *testing.T) {
	for policy, want := range map[string][]string{
		`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject"}]}`:                                                                      {"allows everybody"},
		`{"Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":"s3:*"}]}`:                                                                    {"allows everybody"},
		`{"Statement":[{"Effect":"Allow","Principal":"*","Condition":{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}}]}`:                                    nil,
		`{"Statement":[{"Effect":"Deny","Principal":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}`:                                          nil,
		`{"Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::1:role/stoker"}}]}`:                                                             nil,
		`{"Statement":[{"Effect":"Allow","Principal":{"Service":"logging.s3.amazonaws.com"}}]}`:                                                           nil,
		`{"Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::1:root","arn:aws:sts::1:assumed-role/r/s"]}}]}`:                                {"names the session"},
		`{"Statement":[{"Effect":"Allow","NotPrincipal":{"AWS":"arn:aws:iam::1:root"}}]}`:                                                                 {"allows everybody whom it does not name"},
		`{"Statement":[{"Effect":"Allow","Principal":"*","Condition":{"StringLike":{"aws:userId":["AROA1:*","AROA2:*"]}}}]}`:                              {"aws:userid", "aws:userid"},
		`{"Statement":[{"Effect":"Allow","Principal":"*","Condition":{"ArnLike":{"aws:PrincipalArn":"arn:aws:sts::1:assumed-role/*"}}}]}`:                 {"aws:principalarn"},
		`{"Statement":[{"Effect":"Allow","Principal":"*","Condition":{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::1:role/x"}}}]}`:                         nil,
		`{"Statement":[{"Effect":"Allow","Principal":"*","Condition":{"Bool":{"aws:ViaAWSService":true},"NumericLessThan":{"s3:signatureAge":600000}}}]}`: nil,
	} {
		got, err := judge([]byte(policy))
		if err != nil {
			t.Errorf("%s: %v", policy, err)
		}
		if len(got) != len(want) {
			t.Errorf("%s: %q, want %d", policy, got, len(want))
			continue
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%s: %q, want %q in it", policy, got[i], want[i])
			}
		}
	}
}

func FuzzJudge(f *testing.F) {
	f.Add([]byte(`{"Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Condition":{"StringLike":{"aws:userid":[1,true,null]}}}]}`))
	f.Add([]byte(`{"Statement":{"Effect":"Allow","NotPrincipal":"*"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		problems, err := judge(text)
		if err == nil && !json.Valid(text) {
			t.Errorf("what is no JSON was judged: %q", problems)
		}
	})
}
