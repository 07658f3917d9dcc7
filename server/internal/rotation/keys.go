package rotation

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	// backTime is for how long the old key is used where STS does not know the
	// new one yet.
	backTime = 5 * time.Second
	// refreshTimeout bounds reading which key to use within a call to STS.
	refreshTimeout = 3 * time.Second
	// followInterval is how often a replica looks whether it has said which key
	// it uses.
	followInterval = 5 * time.Second
)

// KeysConfig is what Keys need. All but Log is required.
type KeysConfig struct {
	// Account is the account's name.
	Account string
	Store   Store
	Sealer  Sealer
	Trail   Trail
	Log     *slog.Logger
}

// Trail is the audit trail.
type Trail interface {
	Append(ctx context.Context, rec storage.AuditRecord, fence int64) (storage.AuditRecord, error)
}

// Keys are one account's keys as this replica uses them: an
// aws.CredentialsProvider over the configured source. They are safe for
// concurrent use.
type Keys struct {
	KeysConfig
	base aws.CredentialsProvider
	// changed is told of each other key; see Notify.
	changed func()

	mu    sync.Mutex
	state state
	// back: the old key is used until then.
	back time.Time
	// adopted is the turn that this replica has said it made.
	adopted string
	wake    chan struct{}
}

// OpenKeys reads how the account's keys stand.
func OpenKeys(ctx context.Context, c KeysConfig) (*Keys, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keys{KeysConfig: c, wake: make(chan struct{}, 1), changed: func() {}}
	if err := k.Refresh(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// Over puts the keys over the configured source. It is called once, before the
// keys are asked for.
func (k *Keys) Over(base aws.CredentialsProvider) aws.CredentialsProvider {
	k.base = base
	return k
}

// Notify has f called whenever another key is to be used: whoever has kept one
// asks again. It is called once, before Run.
func (k *Keys) Notify(f func()) { k.changed = f }

// Retrieve gives the key to use. It implements aws.CredentialsProvider.
func (k *Keys) Retrieve(ctx context.Context) (aws.Credentials, error) {
	base, err := k.base.Retrieve(ctx)
	k.mu.Lock()
	s, back := k.state, k.back
	k.mu.Unlock()
	if now := time.Now(); s.phase == switched && now.Before(back) {
		if old, ok := s.oldKey(base, err); ok {
			old.CanExpire, old.Expires = true, back
			return old, nil
		}
	}
	return s.pick(base, err)
}

// pick chooses between the configured key and the one that replaced it.
func (s state) pick(base aws.Credentials, err error) (aws.Credentials, error) {
	if s.current == nil || err == nil && base.AccessKeyID != s.current.ID && !s.replaced(base.AccessKeyID) {
		return base, err
	}
	return s.current.credentials(), nil
}

// oldKey is the key that is being replaced, if it is at hand.
func (s state) oldKey(base aws.Credentials, err error) (aws.Credentials, bool) {
	switch {
	case s.before != nil && s.before.ID == s.old:
		return s.before.credentials(), true
	case err == nil && base.AccessKeyID == s.old:
		return base, true
	}
	return aws.Credentials{}, false
}

// Refused takes note that STS does not know the key. The next one that is
// retrieved may be another: the latest that storage has, or where that is the
// refused one and new, the old one for a few seconds.
func (k *Keys) Refused(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	if err := k.Refresh(ctx); err != nil {
		k.Log.WarnContext(ctx, "which key the account is to use cannot be read", "account", k.Account, "error", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state.phase == switched && k.state.current != nil && k.state.current.ID == id {
		k.back = time.Now().Add(backTime)
		k.Log.WarnContext(ctx, "STS does not know the account's new key yet; the old one is used for a moment", "account", k.Account, "access_key_id", id)
	}
}

// Refresh reads how the keys stand. On an error nothing changes.
func (k *Keys) Refresh(ctx context.Context) error {
	s, err := load(ctx, k.Store, k.Sealer, k.Account)
	if err != nil {
		return err
	}
	k.mu.Lock()
	before := k.state
	k.state = s
	k.mu.Unlock()
	if before.turn != s.turn || keyID(before.current) != keyID(s.current) {
		k.changed()
	}
	return nil
}

func keyID(k *accessKey) string {
	if k == nil {
		return ""
	}
	return k.ID
}

// Changed is for the directory's observers. It does not wait.
func (k *Keys) Changed(changes []storage.Change) {
	for _, c := range changes {
		if c.Kind == storage.KindSealedKey {
			select {
			case k.wake <- struct{}{}:
			default:
			}
			return
		}
	}
}

// Run follows the account's state, and says in the audit trail which key this
// replica uses, until ctx ends. It returns nil then.
func (k *Keys) Run(ctx context.Context) error {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	for {
		k.adopt(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
			if err := k.Refresh(ctx); err != nil && ctx.Err() == nil {
				k.Log.WarnContext(ctx, "which key the account is to use cannot be read: the one before stays in use", "account", k.Account, "error", err)
			}
		case <-tick.C:
		}
	}
}

// detailTurn says in a record which switch a replica made.
const detailTurn = "turn"

// adopt says that this replica uses the key of the latest switch.
func (k *Keys) adopt(ctx context.Context) {
	k.mu.Lock()
	s, said := k.state, k.adopted
	k.mu.Unlock()
	if s.turn == "" || s.turn == said {
		return
	}
	used, err := k.Retrieve(ctx)
	if err != nil || s.replaced(used.AccessKeyID) {
		return
	}
	_, err = k.Trail.Append(ctx, storage.AuditRecord{
		Event: string(audit.AccountKeyAdopted), Actor: "broker", Account: k.Account, AccessKeyID: used.AccessKeyID,
		Detail: map[string]string{detailTurn: s.turn},
	}, audit.NoFence)
	if err != nil {
		if ctx.Err() == nil {
			k.Log.WarnContext(ctx, "the use of the account's key could not be recorded: trying again", "account", k.Account, "error", err)
		}
		return
	}
	k.mu.Lock()
	k.adopted = s.turn
	k.mu.Unlock()
}
