package devsts

import (
	"cmp"
	"encoding/xml"
	"net/http"
	"slices"
	"time"
)

// maxAccessKeys is how many keys a user may have.
const maxAccessKeys = 2

// accessKey is a long-term key with what IAM keeps of it.
type accessKey struct {
	User
	inactive      bool
	created, used time.Time
}

func (k accessKey) status() string {
	if k.inactive {
		return "Inactive"
	}
	return "Active"
}

type (
	accessKeyMetadata struct {
		UserName, AccessKeyId, Status, CreateDate string //nolint:revive // IAM's spelling
	}
	listAccessKeysResult struct {
		XMLName           xml.Name            `xml:"ListAccessKeysResult"`
		AccessKeyMetadata []accessKeyMetadata `xml:"AccessKeyMetadata>member"`
		IsTruncated       bool
	}
	createdKey struct {
		accessKeyMetadata
		SecretAccessKey string
	}
	createAccessKeyResult struct {
		XMLName   xml.Name `xml:"CreateAccessKeyResult"`
		AccessKey createdKey
	}
	lastUsed struct {
		LastUsedDate        string `xml:",omitempty"`
		Region, ServiceName string
	}
	getAccessKeyLastUsedResult struct {
		XMLName           xml.Name `xml:"GetAccessKeyLastUsedResult"`
		UserName          string
		AccessKeyLastUsed lastUsed
	}
)

func (k accessKey) metadata() accessKeyMetadata {
	return accessKeyMetadata{UserName: k.Name, AccessKeyId: k.AccessKeyID, Status: k.status(), CreateDate: k.created.UTC().Format(dateForm)}
}

// keyCall reads the names of a call on a user's keys.
func (s *STS) keyCall(c *call, withID bool) (user, id string, err error) {
	var v violations
	user = iamName(&v, c.parameters, ofUser.parameter, ofUser.longest)
	if withID {
		id = iamName(&v, c.parameters, "AccessKeyId", 128)
	}
	if err := c.parameters.rest(); err != nil {
		return "", "", err
	}
	if err := v.err(); err != nil {
		return "", "", err
	}
	_, err = ofUser.find(s, user)
	return user, id, err
}

// keysOf are a user's keys, oldest first. mu is held.
func (s *STS) keysOf(user string) []accessKey {
	var keys []accessKey
	for _, k := range s.users {
		if !k.Root && k.Name == user {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b accessKey) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.AccessKeyID, b.AccessKeyID))
	})
	return keys
}

func (s *STS) listAccessKeys(c *call) (any, error) {
	user, _, err := s.keyCall(c, false)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var result listAccessKeysResult
	for _, k := range s.keysOf(user) {
		result.AccessKeyMetadata = append(result.AccessKeyMetadata, k.metadata())
	}
	return result, nil
}

func (s *STS) createAccessKey(c *call) (any, error) {
	user, _, err := s.keyCall(c, false)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keysOf(user)) >= maxAccessKeys {
		return nil, refuse(http.StatusConflict, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: %d", maxAccessKeys)
	}
	made := accessKey{User: NewUser(user), created: c.now}
	s.users[made.AccessKeyID] = made
	return createAccessKeyResult{AccessKey: createdKey{made.metadata(), made.SecretAccessKey.Reveal()}}, nil
}

// changeKey changes a key of the user's, or refuses where there is none.
func (s *STS) changeKey(user, id string, change func(*accessKey)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.users[id]
	if !ok || k.Root || k.Name != user {
		return refuse(http.StatusNotFound, "NoSuchEntity", "The Access Key with id %s cannot be found.", clip(id))
	}
	change(&k)
	if k.AccessKeyID == "" {
		delete(s.users, id)
	} else {
		s.users[id] = k
	}
	return nil
}

func (s *STS) updateAccessKey(c *call) (any, error) {
	status, _ := c.parameters.text("Status")
	user, id, err := s.keyCall(c, true)
	if err != nil {
		return nil, err
	}
	if status != "Active" && status != "Inactive" {
		return nil, refuse(http.StatusBadRequest, "ValidationError", "Value '%s' at 'status' failed to satisfy constraint: Member must satisfy enum value set: [Active, Inactive]", clip(status))
	}
	return nil, s.changeKey(user, id, func(k *accessKey) { k.inactive = status == "Inactive" })
}

func (s *STS) deleteAccessKey(c *call) (any, error) {
	user, id, err := s.keyCall(c, true)
	if err != nil {
		return nil, err
	}
	return nil, s.changeKey(user, id, func(k *accessKey) { k.AccessKeyID = "" })
}

func (s *STS) getAccessKeyLastUsed(c *call) (any, error) {
	var v violations
	id := iamName(&v, c.parameters, "AccessKeyId", 128)
	if err := c.parameters.rest(); err != nil {
		return nil, err
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.users[id]
	if !ok {
		return nil, refuse(http.StatusNotFound, "NoSuchEntity", "The Access Key with id %s cannot be found.", clip(id))
	}
	result := getAccessKeyLastUsedResult{UserName: k.Name, AccessKeyLastUsed: lastUsed{Region: "N/A", ServiceName: "N/A"}}
	if !k.used.IsZero() {
		result.AccessKeyLastUsed.LastUsedDate = k.used.UTC().Format(dateForm)
	}
	return result, nil
}

// ownerOf is the name of the user whose key it is; empty: nobody's.
func (s *STS) ownerOf(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users[id].Name
}

// noteUse remembers when a long-term key was used last.
func (s *STS) noteUse(id string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.users[id]; ok {
		k.used = now
		s.users[id] = k
	}
}

// AccessKeys gives the ids of a user's keys, oldest first, and which of them
// are active.
func (s *STS) AccessKeys(user string) (ids []string, active []bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keysOf(user) {
		ids, active = append(ids, k.AccessKeyID), append(active, !k.inactive)
	}
	return ids, active
}

// AddAccessKey gives a user a key, as somebody at the console would.
func (s *STS) AddAccessKey(user string) User {
	made := NewUser(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[made.AccessKeyID] = accessKey{User: made, created: s.config.Clock()}
	return made
}

// ForgetAccessKey deletes a key, as somebody at the console would.
func (s *STS) ForgetAccessKey(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.users, id)
}
