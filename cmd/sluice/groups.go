package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// group is what stands together in the list of commands.
type group struct {
	title    string
	commands []*cobra.Command
}

// ownGroup is where the command itself is helped with.
const ownGroup = "The gateway itself"

// groups are all commands, by what brings a person here.
func (p *program) groups() []group {
	return []group{
		{"See what happens", []*cobra.Command{p.statusCommand(), p.logCommand(), p.whyCommand(), p.flowsCommand(), p.observeCommand(), p.auditCommand()}},
		{"Stop a sender, and let go", []*cobra.Command{p.locksCommand(), p.lockCommand(), p.unlockCommand(), p.undoCommand(), p.replayCommand(), p.identitiesCommand(),
			p.guessersCommand(), p.reportCommand()}},
		{"Users and what holds for them", []*cobra.Command{p.usersCommand(), p.accountsCommand(), p.settingsCommand(), p.addressesCommand(), p.loginCommand(), p.holderCommand()}},
		{"Mail that waits or is held", []*cobra.Command{p.queueCommand(), p.quarantineCommand(), p.appealCommand(), p.campaignCommand()}},
		{"How mail leaves", []*cobra.Command{p.poolCommand(), p.tlsCommand(), p.dkimCommand()}},
		{"The content filter", []*cobra.Command{p.classifyCommand(), p.trainCommand(), p.untrainCommand(), p.modelCommand()}},
		{"Whose mail goes through the proxy", []*cobra.Command{p.rolloutCommand(), p.gateCommand(), p.modeCommand(), p.exemptCommand(), p.bypassCommand()}},
		{ownGroup, []*cobra.Command{p.setupCommand(), p.doctorCommand(), p.probeCommand(), p.backupCommand(), p.restoreCommand(), p.tokenCommand(), p.versionCommand()}},
	}
}

// versionCommand says what --version says, in the way that the other programs say it.
func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "print the version of this command", Args: exactly(), RunE: func(*cobra.Command, []string) error {
		_, err := fmt.Fprintln(p.screen.out, "sluice", version)
		return err
	}}
}

// plainFlagError says of a number that is none what it should be, where the library quotes the function that read it.
func plainFlagError(err error) error {
	value, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	what := "a number"
	switch value.GetFlag().Value.Type() {
	case "int", "int64", "uint", "uint64":
		what = "a whole number"
	case "duration":
		what = `a time span like "90s" or "30m"`
	case "bool":
		what = "true or false"
	case "float64":
	default:
		return err
	}
	if errors.Is(value, strconv.ErrRange) {
		return fmt.Errorf("--%s: %s is too large", value.GetFlag().Name, value.GetValue())
	}
	return fmt.Errorf("--%s: %q is not %s", value.GetFlag().Name, value.GetValue(), what)
}
