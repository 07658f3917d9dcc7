package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// phase is how far a rotation has come. Its text is stored.
type phase string

const (
	// idle: no rotation is under way.
	idle phase = ""
	// creating: a key is being created. Whether it was is not known until it is
	// stored.
	creating phase = "creating"
	// created: the new key is stored, and not used yet.
	created phase = "created"
	// switched: replicas use the new key. The old one still works.
	switched phase = "switched"
	// disabled: the old key was disabled, or is about to be deleted.
	disabled phase = "disabled"
	// reverting: replicas use the old key again. The new one is to be deleted.
	reverting phase = "reverting"
)

// accessKey is an IAM user's key.
type accessKey struct {
	ID     string
	Secret secret.String
}

func (k *accessKey) credentials() aws.Credentials {
	return aws.Credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret.Reveal(), Source: "Stoker"}
}

// state is how an account's keys stand. Values are never changed in place.
type state struct {
	// id is that of the row in storage; empty: there is none.
	id    string
	phase phase
	// current is the key in use instead of one that was replaced; nil: the
	// configured one is. before is the current one of before the switch.
	current, before *accessKey
	// next is the key that takes over, or that is undone.
	next *accessKey
	// old is the id of the key that is being replaced, user the ARN of whose it
	// is.
	old, user string
	// retired are the ids of keys that were replaced and deleted, newest last.
	retired []string
	// turn names one switch, or one switch back: replicas tell which of them
	// they have made.
	turn string
	// began is when the rotation did.
	began time.Time
	// run names who holds the claim, until then; holder says it to people.
	run, holder string
	until       time.Time
}

// maxRetired bounds how many replaced keys are remembered.
const maxRetired = 100

// replaced says whether the key is not to be used any more.
func (s state) replaced(id string) bool {
	return (s.phase == switched || s.phase == disabled) && id == s.old || slices.Contains(s.retired, id)
}

// stored is a state as it is sealed.
type stored struct {
	Phase                 phase
	Current, Before, Next *storedKey `json:",omitempty"`
	Old, User             string     `json:",omitempty"`
	Retired               []string   `json:",omitempty"`
	Turn                  string     `json:",omitempty"`
	Began                 time.Time
	Run, Holder           string
	Until                 time.Time
}

type storedKey struct{ ID, Secret string }

func seal(k *accessKey) *storedKey {
	if k == nil {
		return nil
	}
	return &storedKey{k.ID, k.Secret.Reveal()}
}

func (k *storedKey) open() *accessKey {
	if k == nil {
		return nil
	}
	return &accessKey{k.ID, secret.New(k.Secret)}
}

// Store keeps sealed keys.
type Store interface {
	storage.Keys
	ListAudit(ctx context.Context, f storage.AuditFilter, after *storage.AuditCursor, limit int) ([]storage.AuditRecord, error)
}

// Sealer encrypts what is stored; *pki.Sealer does.
type Sealer interface {
	Seal(purpose string, plaintext []byte) []byte
	Open(purpose string, sealed []byte) ([]byte, error)
}

// purpose is what an account's states are stored and sealed under.
func purpose(account string) string { return "account/" + account }

// errRaced says that another run stored a state meanwhile.
var errRaced = errors.New("somebody else works on the key of this account")

// load reads an account's state.
func load(ctx context.Context, keys storage.Keys, sealer Sealer, account string) (state, error) {
	rows, err := keys.ListKeys(ctx, purpose(account))
	if err != nil {
		return state{}, fmt.Errorf("read the keys of account %q: %w", account, err)
	}
	for _, row := range rows {
		if !row.RetiredAt.IsZero() {
			continue
		}
		text, err := sealer.Open(purpose(account), row.Sealed)
		if err != nil {
			return state{}, fmt.Errorf("the stored key of account %q %w", account, err)
		}
		var v stored
		if err := json.Unmarshal(text, &v); err != nil {
			// The error may quote what it could not read.
			return state{}, fmt.Errorf("the stored key of account %q is malformed", account)
		}
		return state{
			id: row.ID, phase: v.Phase, current: v.Current.open(), before: v.Before.open(), next: v.Next.open(),
			old: v.Old, user: v.User, retired: v.Retired, turn: v.Turn, began: v.Began, run: v.Run, holder: v.Holder, until: v.Until,
		}, nil
	}
	return state{}, nil
}

// save stores the state in the place of the one with its id, and gives it with
// its new one. errRaced: that one is not the latest any more.
func save(ctx context.Context, keys storage.Keys, sealer Sealer, account string, s state) (state, error) {
	text, err := json.Marshal(stored{
		Phase: s.phase, Current: seal(s.current), Before: seal(s.before), Next: seal(s.next), Old: s.old, User: s.user, Retired: s.retired,
		Turn: s.turn, Began: s.began, Run: s.run, Holder: s.holder, Until: s.until,
	})
	if err != nil {
		return s, fmt.Errorf("write the state of account %q: %w", account, err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return s, fmt.Errorf("make an id: %w", err)
	}
	replaced := s.id
	_, err = keys.AddKey(ctx, storage.SealedKey{
		Meta: storage.Meta{ID: id.String()}, Purpose: purpose(account), Sealed: sealer.Seal(purpose(account), text),
	}, replaced)
	switch {
	case errors.Is(err, storage.ErrConflict):
		// Ours may be the one that is there: storage repeats what it doubts.
		latest, err := load(ctx, keys, sealer, account)
		if err != nil {
			return s, err
		}
		if latest.id != id.String() {
			return s, errRaced
		}
	case err != nil:
		return s, fmt.Errorf("store the state of account %q: %w", account, err)
	}
	s.id = id.String()
	return s, nil
}
