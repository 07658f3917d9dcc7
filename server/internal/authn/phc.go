package authn

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Bounds of what is read from a stored hash. Whoever can write to the database
// must not thereby be able to exhaust the broker.
const (
	maxStored  = 512       // bytes of the whole text
	minMemory  = 8         // KiB a lane, as argon2 itself wants
	maxMemory  = 128 << 10 // KiB
	maxPasses  = 16
	maxLanes   = 4
	maxWork    = 512 << 10 // memory in KiB times passes
	minSalt    = 8
	maxSalt    = 64
	minHash    = 16
	maxHash    = 64
	saltLength = 16
	hashLength = 32
)

var errStoredHash = errors.New("the stored password hash cannot be read: set the password again")

// storedHash is an argon2id hash with its parameters.
type storedHash struct {
	memory uint32 // KiB
	passes uint32
	lanes  uint8
	salt   []byte
	hash   []byte
}

// parseHash reads a PHC string ($argon2id$v=19$m=..,t=..,p=..$salt$hash) in its
// one canonical spelling, within bounds.
func parseHash(text string) (storedHash, error) {
	if len(text) > maxStored {
		return storedHash{}, errStoredHash
	}
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return storedHash{}, errStoredHash
	}
	var h storedHash
	parameters := strings.Split(parts[3], ",")
	if len(parameters) != 3 {
		return storedHash{}, errStoredHash
	}
	memory, err1 := parseParameter(parameters[0], "m=", maxMemory)
	passes, err2 := parseParameter(parameters[1], "t=", maxPasses)
	lanes, err3 := parseParameter(parameters[2], "p=", maxLanes)
	if err := errors.Join(err1, err2, err3); err != nil || memory < minMemory*lanes || memory*passes > maxWork {
		return storedHash{}, errStoredHash
	}
	h.memory, h.passes, h.lanes = uint32(memory), uint32(passes), uint8(lanes)
	var err error
	if h.salt, err = parseBytes(parts[4], minSalt, maxSalt); err != nil {
		return storedHash{}, err
	}
	if h.hash, err = parseBytes(parts[5], minHash, maxHash); err != nil {
		return storedHash{}, err
	}
	return h, nil
}

// parseParameter reads a number from 1 to limit without sign or leading zero.
func parseParameter(text, prefix string, limit uint64) (uint64, error) {
	digits, found := strings.CutPrefix(text, prefix)
	if !found || digits == "" || digits[0] < '1' || digits[0] > '9' {
		return 0, errStoredHash
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n > limit {
		return 0, errStoredHash
	}
	return n, nil
}

func parseBytes(text string, shortest, longest int) ([]byte, error) {
	data, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") || len(data) < shortest || len(data) > longest {
		return nil, errStoredHash
	}
	return data, nil
}

// String writes the PHC string.
func (h storedHash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.lanes,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.hash))
}

// derive computes the hash of a password under h's parameters and salt.
func (h storedHash) derive(password []byte) []byte {
	return argon2.IDKey(password, h.salt, h.passes, h.memory, h.lanes, uint32(len(h.hash)))
}

// weakerThan says whether guessing against h costs less than against want.
func (h storedHash) weakerThan(want storedHash) bool {
	return uint64(h.memory)*uint64(h.passes) < uint64(want.memory)*uint64(want.passes) ||
		len(h.salt) < len(want.salt) || len(h.hash) < len(want.hash)
}
