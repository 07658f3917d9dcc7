package devsts

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/http"
	"strings"
)

// principalKind is what sort of identity a key belongs to.
type principalKind string

const (
	iamUser       principalKind = "user"
	rootUser      principalKind = "root"
	roleSession   principalKind = "assumed-role"
	federatedUser principalKind = "federated-user"
)

// principal is an authenticated caller.
type principal struct {
	kind   principalKind
	arn    string
	userID string
	// session is nil for long-term keys.
	session   *session
	secretKey string
}

// lookUp finds the key that a request claims. A long-term key comes alone, a
// session's only with its token.
func (s *STS) lookUp(a authorization) (*principal, error) {
	unknown := refuse(http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid.")
	s.mu.Lock()
	key, known := s.users[a.accessKeyID]
	s.mu.Unlock()
	if known {
		if a.token != "" || key.inactive {
			return nil, unknown
		}
		return s.longTerm(key.User), nil
	}
	if a.token == "" {
		return nil, unknown
	}
	open, err := s.seal.open(a.accessKeyID, a.token)
	if err != nil {
		return nil, unknown
	}
	p := s.identity(open)
	p.secretKey = s.seal.secretKey(a.accessKeyID)
	return p, nil
}

func (s *STS) longTerm(u User) *principal {
	if u.Root {
		return &principal{
			kind: rootUser, arn: fmt.Sprintf("arn:aws:iam::%s:root", s.config.AccountID),
			userID: s.config.AccountID, secretKey: u.SecretAccessKey.Reveal(),
		}
	}
	return &principal{
		kind: iamUser, arn: fmt.Sprintf("arn:aws:iam::%s:user/%s", s.config.AccountID, u.Name),
		userID: uniqueID("AIDA", u.Name), secretKey: u.SecretAccessKey.Reveal(),
	}
}

// identity gives the names under which AWS knows a session.
func (s *STS) identity(open *session) *principal {
	p := &principal{kind: open.Kind, session: open}
	if open.Kind == federatedUser {
		p.arn = fmt.Sprintf("arn:aws:sts::%s:federated-user/%s", s.config.AccountID, open.Name)
		p.userID = s.config.AccountID + ":" + open.Name
		return p
	}
	p.arn = fmt.Sprintf("arn:aws:sts::%s:assumed-role/%s/%s", s.config.AccountID, open.Role, open.Name)
	p.userID = uniqueID("AROA", open.Role) + ":" + open.Name
	return p
}

func (s *STS) roleARN(name string) string {
	return fmt.Sprintf("arn:aws:iam::%s:role/%s", s.config.AccountID, name)
}

// roleByARN finds a role of this account.
func (s *STS) roleByARN(arn string) (Role, bool) {
	name, ok := strings.CutPrefix(arn, s.roleARN(""))
	if !ok {
		return Role{}, false
	}
	role, known := s.roles[name]
	return role, known
}

// uniqueID makes AWS's form of an id for a name, the same one in every run.
func uniqueID(prefix, name string) string {
	sum := sha256.Sum256([]byte(prefix + name))
	return prefix + base32.StdEncoding.EncodeToString(sum[:])[:17]
}
