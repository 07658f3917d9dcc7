package lease

import (
	"crypto/sha256"
	"fmt"
	"math/big"
	"strings"

	"github.com/google/uuid"
)

const (
	// ourName begins every session's name: what the broker's sessions are
	// found by, and what a policy may match. Nothing else in a name is for a
	// policy to look at.
	ourName = "stoker-"
	// everySTS is the length of name that every STS takes: GetFederationToken's
	// limit.
	everySTS = 32
	// markLength is how many characters tell the sessions of one purpose
	// apart: 67 bits.
	markLength = 13
)

// sessionName makes the name of a credential's STS session, within so many
// characters. An agent's is the credential's id in base 36, which keeps the
// order of time, in 32 characters. A service's shows what it acts for, as far
// as there is room, before a mark made of the id:
//
//	stoker-03hag0m8fxlde2f922b554p8x
//	stoker-ticket-4711-2x9k0m8fxlde2
//
// Both are lower-case letters, digits and single dashes whatever the purpose
// says, so that a policy can name a session without escaping anything.
func sessionName(id uuid.UUID, purpose string, longest int) string {
	if purpose == "" {
		return fmt.Sprintf("%s%025s", ourName, new(big.Int).SetBytes(id[:]).Text(36))
	}
	sum := sha256.Sum256(id[:])
	mark := fmt.Sprintf("%013s", new(big.Int).SetBytes(sum[:]).Text(36))[:markLength]
	words := slug(purpose, max(longest, everySTS)-len(ourName)-len("-")-markLength)
	if words == "" {
		return ourName + mark
	}
	return ourName + words + "-" + mark
}

// slug writes a text in lower-case letters, digits and dashes, of which none
// stands at an end or next to another, in at most so many characters. What is
// neither an ASCII letter nor a digit becomes a dash.
func slug(text string, longest int) string {
	var b strings.Builder
	gap := false
	for _, r := range strings.ToLower(text) {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			gap = b.Len() > 0
			continue
		}
		if gap && b.Len()+2 > longest || b.Len()+1 > longest {
			break
		}
		if gap {
			b.WriteByte('-')
			gap = false
		}
		b.WriteRune(r)
	}
	return b.String()
}
