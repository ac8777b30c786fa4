package sftp

import (
	"errors"
	"fmt"
	"io"

	"github.com/pkg/sftp"
)

// plain says what the client means by an error.
func plain(err error) error {
	var status *sftp.StatusError
	switch {
	case errors.Is(err, sftp.ErrSSHFxConnectionLost), errors.Is(err, io.ErrClosedPipe):
		return fmt.Errorf("the connection was lost, or the server ended the session: %w", err)
	case errors.As(err, &status) && status.FxCode() == sftp.ErrSSHFxFailure:
		return fmt.Errorf("%w (SFTP says no more; a full disk is one reason, and the server's log has others)", err)
	}
	return err
}
