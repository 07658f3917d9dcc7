package server

import (
	"context"

	"github.com/stokerd/stoker/server/internal/awsiam"
	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/revocation"
)

// openRevocation opens what cuts parties off, and keeps the policies that deny
// what was issued to them.
func (s *Server) openRevocation(context.Context) (err error) {
	accounts := make(map[string]revocation.Account, len(s.issuers))
	for name, sts := range s.issuers {
		a := sts.Account()
		account := revocation.Account{
			Mode: revocation.Mode(s.config.Accounts[name].Revocation), MaxLifetime: a.MaxLifetime, Limit: revocation.RoleLimit,
		}
		config := revocation.AWSConfig{
			Config: awsiam.Config{Region: a.Region, Endpoint: a.Endpoint, Keys: sts.Keys()}, RoleARN: a.RoleARN, Caller: sts.Caller,
		}
		if a.Method == issuer.FederationToken {
			account.Limit, config.RoleARN = revocation.UserLimit, ""
		}
		if account.Mode == revocation.Apply {
			iam := revocation.NewAWS(config)
			s.iams = append(s.iams, iam)
			account.IAM = iam
		}
		accounts[name] = account
	}
	s.revoker, err = revocation.New(revocation.Config{
		Directory: s.directory, Store: s.store, Trail: s.trail, Accounts: accounts, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.directory.Observe(s.revoker.Changed)
	return nil
}
