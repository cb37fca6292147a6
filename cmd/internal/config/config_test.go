package config

import (
	"os"
	"strings"
	"testing"
)

func TestParse_KnowsEveryKeyOfTheContract(t *testing.T) {
	data, err := os.ReadFile("testdata/contract.toml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Parse("contract.toml", data)
	faults, _ := err.(Faults)
	if len(faults) == 0 {
		t.Fatal("the contract asks for more than this build does, but there is no fault")
	}
	for _, f := range faults {
		if strings.Contains(f.Problem, "unknown") || strings.Contains(f.Problem, "must be") {
			t.Errorf("%v", &f)
		}
	}
}

func TestParse_ThreeLinesAreAWholeConfiguration(t *testing.T) {
	c, err := Parse("gatelodge.toml", []byte("[[site]]\nhosts = [\"Example.COM.\", \"localhost\"]\nto = \"http://127.0.0.1:3000\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	sites := c.Resolve()
	if len(sites) != 1 || sites[0].Name != "example.com" || sites[0].Upstream.To[0].String() != "http://127.0.0.1:3000" {
		t.Errorf("sites are %+v", sites)
	}
	if got := c.Issuers("example.com", nil); len(got) != 1 || got[0] != "letsencrypt" {
		t.Errorf("example.com is issued by %v", got)
	}
}
