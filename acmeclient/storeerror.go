package acmeclient

// StoreError is a failure of our own storage. It is held against neither the CA nor the name: what was begun goes on when the storage answers again.
type StoreError struct{ err error }

func (e *StoreError) Error() string { return e.err.Error() }
func (e *StoreError) Unwrap() error { return e.err }

// ofStore marks err as one.
func ofStore(err error) error { return &StoreError{err} }
