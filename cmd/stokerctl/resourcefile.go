package main

import (
	"io"
	"os"
	"time"

	"github.com/stokerd/stoker/internal/strictyaml"
)

// resourceFile is what apply reads and export writes. What is left out (nil)
// is left alone on the broker, and gets its default where the resource is new.
// Nothing is ever deleted by it.
type resourceFile struct {
	Locations map[string]locationEntry `yaml:"locations,omitempty"`
	Tenants   map[string]tenantEntry   `yaml:"tenants,omitempty"`
}

type locationEntry struct {
	Account   *string `yaml:"account,omitempty"`
	Bucket    *string `yaml:"bucket,omitempty"`
	Region    *string `yaml:"region,omitempty"`
	Endpoint  *string `yaml:"endpoint,omitempty"`
	KMSKeyARN *string `yaml:"kms_key_arn,omitempty"`
}

type tenantEntry struct {
	DisplayName *string               `yaml:"display_name,omitempty"`
	Disabled    *bool                 `yaml:"disabled,omitempty"`
	Users       map[string]userEntry  `yaml:"users,omitempty"`
	Agents      map[string]agentEntry `yaml:"agents,omitempty"`
	Grants      map[string]grantEntry `yaml:"grants,omitempty"`
}

type userEntry struct {
	Disabled *bool `yaml:"disabled,omitempty"`
	// PasswordFile is read when the user is created, relative to this file. Left
	// out, the broker makes the password.
	PasswordFile *string `yaml:"password_file,omitempty"`
	// Password is known only to be refused with a better text than an unknown
	// key gets.
	Password *string `yaml:"password,omitempty"`
}

type agentEntry struct {
	Disabled *bool `yaml:"disabled,omitempty"`
}

type grantEntry struct {
	Login    *string        `yaml:"login,omitempty"`
	Location *string        `yaml:"location,omitempty"`
	Prefix   *string        `yaml:"prefix,omitempty"`
	Access   *string        `yaml:"access,omitempty"`
	Actions  *[]string      `yaml:"actions,omitempty"`
	Lifetime *time.Duration `yaml:"lifetime,omitempty"`
	Disabled *bool          `yaml:"disabled,omitempty"`
}

// readResourceFile reads a file, or standard input where the path is "-".
func readResourceFile(path string, stdin io.Reader) (*resourceFile, *strictyaml.Document, error) {
	var data []byte
	var err error
	if path == "-" {
		path = "standard input"
		data, err = io.ReadAll(stdin)
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, nil, usagef("%v", err)
	}
	var f resourceFile
	doc := strictyaml.Decode(path, data, &f)
	for tenant, t := range f.Tenants {
		at := "tenants." + tenant
		for login, u := range t.Users {
			if u.Password != nil {
				doc.Add(at+".users."+login+".password", "a password does not belong into this file; name a file with it in password_file, or leave it to the broker")
			}
		}
		for grant, g := range t.Grants {
			if g.Access == nil {
				continue
			}
			if _, ok := parseAccess(*g.Access); !ok {
				doc.Add(at+".grants."+grant+".access", "%.40q is no access; use backup, restore, maintain or actions", *g.Access)
			}
		}
	}
	if err := doc.Err(); err != nil {
		return nil, nil, &usageError{err.Error()}
	}
	return &f, doc, nil
}
