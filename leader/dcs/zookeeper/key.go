package zookeeper

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
)

// decryptKey gives the PEM file without the encryption of its private key, which the standard
// library does not read: PKCS #8 with PBES2 (RFC 8018: PBKDF2 and AES in CBC), as OpenSSL 3
// writes it. A key that is not encrypted stays as it is.
func decryptKey(file, password []byte) ([]byte, error) {
	var out []byte
	for block, rest := pem.Decode(file); block != nil; block, rest = pem.Decode(rest) {
		if block.Headers["DEK-Info"] != "" {
			return nil, errors.New("it is encrypted in the old way, by MD5: openssl pkcs8 -topk8 -v2 aes256 makes a better one")
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" {
			der, err := decryptPKCS8(block.Bytes, password)
			if err != nil {
				return nil, err
			}
			block = &pem.Block{Type: "PRIVATE KEY", Bytes: der}
		}
		out = append(out, pem.EncodeToMemory(block)...)
	}
	if out == nil {
		return nil, errors.New("it is not PEM")
	}
	return out, nil
}

func decryptPKCS8(der, password []byte) ([]byte, error) {
	var outer struct {
		Algorithm struct {
			ID     asn1.ObjectIdentifier
			Params struct{ KDF, Cipher pkix.AlgorithmIdentifier }
		}
		Data []byte
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil || outer.Algorithm.ID.String() != "1.2.840.113549.1.5.13" {
		return nil, errors.New("its encryption is not PBES2: openssl pkcs8 -topk8 -v2 aes256 makes such a one")
	}
	size := map[string]int{"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, "2.16.840.1.101.3.4.1.42": 32}[outer.Algorithm.Params.Cipher.Algorithm.String()]
	if size == 0 {
		return nil, fmt.Errorf("its cipher %v is not AES in CBC", outer.Algorithm.Params.Cipher.Algorithm)
	}
	key, err := derive(outer.Algorithm.Params.KDF, password, size)
	if err != nil {
		return nil, err
	}
	var iv []byte
	if _, err := asn1.Unmarshal(outer.Algorithm.Params.Cipher.Parameters.FullBytes, &iv); err != nil || len(iv) != aes.BlockSize {
		return nil, errors.New("its encryption has no IV")
	}
	if len(outer.Data) == 0 || len(outer.Data)%aes.BlockSize != 0 {
		return nil, errors.New("it is cut off")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(outer.Data, outer.Data)
	padding := int(outer.Data[len(outer.Data)-1])
	if padding == 0 || padding > aes.BlockSize {
		return nil, errors.New("the password is wrong")
	}
	return outer.Data[:len(outer.Data)-padding], nil
}

// derive is PBKDF2, with a hash that the key names.
func derive(kdf pkix.AlgorithmIdentifier, password []byte, size int) ([]byte, error) {
	var p struct {
		Salt   []byte
		Rounds int
		Size   int                      `asn1:"optional"`
		PRF    pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if kdf.Algorithm.String() != "1.2.840.113549.1.5.12" {
		return nil, fmt.Errorf("its key derivation %v is not PBKDF2", kdf.Algorithm)
	}
	if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p); err != nil || p.Rounds < 1 || p.Rounds > 100_000_000 {
		return nil, errors.New("its key derivation is damaged")
	}
	var h func() hash.Hash
	switch p.PRF.Algorithm.String() {
	case "", "1.2.840.113549.2.7":
		h = sha1.New
	case "1.2.840.113549.2.9":
		h = sha256.New
	case "1.2.840.113549.2.11":
		h = sha512.New
	default:
		return nil, fmt.Errorf("its hash %v is not SHA-1, SHA-256 or SHA-512", p.PRF.Algorithm)
	}
	return pbkdf2.Key(h, string(password), p.Salt, p.Rounds, size)
}
