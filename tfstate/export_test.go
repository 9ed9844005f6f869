package tfstate

import "fmt"

// Sealed is a body with the checksum that belongs to key and text.
func Sealed(key, text []byte) []byte {
	return append(fmt.Appendf(nil, "%c%016x", storedFormat, checksum(key, text)), text...)
}
