package server

import (
	"context"

	"github.com/stokerd/stoker/server/internal/awsiam"
	"github.com/stokerd/stoker/server/internal/rotation"
)

// rotator replaces the keys of the accounts' IAM users.
func (s *Server) rotator() *rotation.Desk {
	accounts := make(map[string]rotation.Account, len(s.issuers))
	for name, sts := range s.issuers {
		a := sts.Account()
		iam := awsiam.New(awsiam.Config{Region: a.Region, Endpoint: a.Endpoint, Keys: sts.Keys()})
		s.iams = append(s.iams, iam)
		accounts[name] = rotation.Account{Keys: s.rotating[name], IAM: rotation.NewAWS(iam), Caller: sts.CallerOf}
	}
	return rotation.New(rotation.Config{
		Accounts: accounts, Store: s.store, Sealer: s.sealer, Trail: s.trail, Writer: s.trail.Writer(), Log: s.log,
		Brokers: func(ctx context.Context) ([]string, error) {
			brokers, err := s.watcher.Brokers(ctx)
			if err != nil {
				return nil, err
			}
			writers := make([]string, len(brokers))
			for i, b := range brokers {
				writers[i] = b.Writer
			}
			return writers, nil
		},
	})
}
