// Package storagetest is the conformance suite of the storage backends: each
// sentence of the interfaces' comments in package storage has a case here.
//
// A backend's test is one call of Run. The package never looks behind the
// interfaces; what only one backend has (files, servers, lost connections) is
// tested by that backend.
package storagetest
