package adminapi

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	defaultPage = 100
	largestPage = 1000
	// maxToken bounds a page token, in characters. None that was given out is
	// near it.
	maxToken = 2048
)

// pager seals page tokens. A token holds the place where the next page begins,
// encrypted and bound to the call and to all that selects the list: a token of
// another list, with other filters, or made by anybody else is refused. The
// key is the same in every replica, so any of them can go on with the list.
type pager struct{ seal cipher.AEAD }

func newPager(key secret.String) (pager, error) {
	if len(key.Reveal()) < 32 {
		return pager{}, errors.New("the key for page tokens has less than 32 bytes")
	}
	// Derived, so that no other use of the key can be turned against this one.
	derived, err := hkdf.Key(sha256.New, []byte(key.Reveal()), nil, "stoker page tokens 1", 32)
	if err != nil {
		return pager{}, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return pager{}, err
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return pager{}, err
	}
	return pager{seal}, nil
}

// list is one selection: the call and every field of the request that chooses
// what is listed, in a fixed order. The size of a page does not.
type list []string

// bytes is unambiguous: each part has its length before it.
func (l list) bytes() []byte {
	var out []byte
	for _, part := range l {
		out = binary.AppendUvarint(out, uint64(len(part)))
		out = append(out, part...)
	}
	return out
}

// token gives the token for the page after a place.
func (p pager) token(l list, place string) string {
	sealed := p.seal.Seal(nil, nil, []byte(place), l.bytes()) //nolint:gosec // this AEAD draws its nonce itself
	return base64.RawURLEncoding.EncodeToString(sealed)
}

// place reads a token; the place of the first page is "".
func (p pager) place(l list, token string) (string, error) {
	return p.read(l, "page_token", token, maxToken)
}

// read reads a token of at most so many characters from a field.
func (p pager) read(l list, field, token string, most int) (string, error) {
	if token == "" {
		return "", nil
	}
	refused := invalid(field, "is not one that this list gave out; repeat the call without it, or with the fields it was given for")
	// The decoder passes over line breaks, and so would take two texts for one.
	if len(token) > most || strings.ContainsAny(token, "\r\n") {
		return "", refused
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return "", refused.Because(err)
	}
	place, err := p.seal.Open(nil, nil, sealed, l.bytes())
	if err != nil {
		return "", refused.Because(err)
	}
	return string(place), nil
}

// pageSize applies the default and the limit.
func pageSize(asked int32) (int, error) {
	switch {
	case asked < 0:
		return 0, invalid("page_size", "is %d; give a number from 1 to %d, or 0 for %d", asked, largestPage, defaultPage)
	case asked == 0:
		return defaultPage, nil
	}
	return min(int(asked), largestPage), nil
}

// page is a request for a part of a list.
type page struct {
	size  int32
	token string
}

// readPage answers a page of entities in order of name, as messages, and the
// token of the next page, or "" on the last.
func readPage[T, M any](ctx context.Context, a *API, l list, p page,
	read func(context.Context, storage.Page) ([]T, error), name func(T) string, message func(T) (M, error),
) (messages []M, next string, err error) {
	size, err := pageSize(p.size)
	if err != nil {
		return nil, "", err
	}
	after, err := a.pages.place(l, p.token)
	if err != nil {
		return nil, "", err
	}
	// One more than is shown tells whether there is another page.
	found, err := read(ctx, storage.Page{After: after, Limit: size + 1})
	if err != nil {
		return nil, "", fmt.Errorf("list: %w", err)
	}
	if len(found) > size {
		found = found[:size]
		next = a.pages.token(l, name(found[size-1]))
	}
	messages = make([]M, len(found))
	for i, entity := range found {
		if messages[i], err = message(entity); err != nil {
			return nil, "", err
		}
	}
	return messages, next, nil
}

// sure makes a translation that cannot fail one for readPage.
func sure[T, M any](message func(T) M) func(T) (M, error) {
	return func(v T) (M, error) { return message(v), nil }
}

// within makes the list of a tenant's entities one for readPage.
func within[T any](tenantID string, read func(context.Context, string, storage.Page) ([]T, error)) func(context.Context, storage.Page) ([]T, error) {
	return func(ctx context.Context, p storage.Page) ([]T, error) { return read(ctx, tenantID, p) }
}
