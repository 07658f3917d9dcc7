package pki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// revocations is what a file of revocation lists says. Serial numbers are kept
// without their issuers: of two authorities in one bundle that use one number,
// the other's certificate is refused too, which errs on the safe side.
type revocations struct {
	serials map[string]struct{}
	// nextUpdate is when the first of the lists is due for replacement; zero
	// where none says so.
	nextUpdate time.Time
}

// parseRevocations reads one revocation list in DER, or any number in PEM.
// Each must be signed by one of the authorities.
func parseRevocations(data []byte, authorities []*x509.Certificate) (revocations, error) {
	lists, err := splitRevocations(data)
	if err != nil {
		return revocations{}, err
	}
	found := revocations{serials: map[string]struct{}{}}
	for n, der := range lists {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return revocations{}, fmt.Errorf("revocation list %d: %w", n+1, err)
		}
		if err := checkRevocations(list, authorities); err != nil {
			return revocations{}, fmt.Errorf("revocation list %d: %w", n+1, err)
		}
		for _, entry := range list.RevokedCertificateEntries {
			found.serials[entry.SerialNumber.Text(16)] = struct{}{}
		}
		if next := list.NextUpdate; !next.IsZero() && (found.nextUpdate.IsZero() || next.Before(found.nextUpdate)) {
			found.nextUpdate = next
		}
	}
	return found, nil
}

func splitRevocations(data []byte) ([][]byte, error) {
	if blocks(data) == 0 {
		return [][]byte{data}, nil
	}
	var lists [][]byte
	for rest := data; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != pemCRL {
			return nil, fmt.Errorf("a %s stands where revocation lists belong", block.Type)
		}
		lists = append(lists, block.Bytes)
	}
	if blocks(data) != len(lists) {
		return nil, errors.New("a PEM block is cut off or garbled")
	}
	return lists, nil
}

// checkRevocations refuses lists that are not an authority's own, and those of
// which an unknown critical extension says that they do not mean what a plain
// list means (delta lists, partial lists, lists for other issuers).
func checkRevocations(list *x509.RevocationList, authorities []*x509.Certificate) error {
	if err := noCritical(list.Extensions); err != nil {
		return err
	}
	for _, entry := range list.RevokedCertificateEntries {
		if err := noCritical(entry.Extensions); err != nil {
			return err
		}
	}
	for _, authority := range authorities {
		if bytes.Equal(authority.RawSubject, list.RawIssuer) && list.CheckSignatureFrom(authority) == nil {
			return nil
		}
	}
	return errors.New("it is signed by none of the client authorities")
}

func noCritical(extensions []pkix.Extension) error {
	for _, extension := range extensions {
		if extension.Critical {
			return fmt.Errorf("it has the critical extension %s: use a complete, direct list", extension.Id)
		}
	}
	return nil
}
