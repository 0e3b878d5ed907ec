package policy

import "testing"

func TestOnwardTLSNames(t *testing.T) {
	t.Parallel()
	for o := Opportunistic; o <= VerifyTLS; o++ {
		if got, err := ParseOnwardTLS(o.String()); err != nil || got != o {
			t.Errorf("%v reads as %v, %v", o, got, err)
		}
	}
	if _, err := ParseOnwardTLS("maybe"); err == nil || OnwardTLS(9).String() != "?" {
		t.Error("an unknown name is taken")
	}
}
