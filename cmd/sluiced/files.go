package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sluice/cmd/internal/backup"
	"sluice/cmd/internal/config"
	"sluice/cmd/internal/inflight"
	"sluice/cmd/internal/msglog"
	"sluice/cmd/internal/store"
	"sluice/filter/limit"
	"sluice/intercept/control"
	"sluice/proxy/pool"
)

// openFiles opens what is kept on disk.
func (d *daemon) openFiles(cfg *config.Config) (err error) {
	for _, dir := range []string{cfg.Store.Dir, cfg.Log.Dir, cfg.SMTP.SpillDir, inflightDir(cfg)} {
		if err := makeFolder(dir); err != nil {
			return err
		}
	}
	before, err := backup.Finish(cfg.Store.Dir)
	if err != nil {
		return err
	}
	if before != "" {
		d.log.Warn("ended a restore that was interrupted", "before", before)
	}
	if err := removeGathered(cfg.Store.Dir); err != nil {
		return err
	}
	d.store, err = store.Open(filepath.Join(cfg.Store.Dir, "sluice.db"), store.Options{Failed: func(err error) {
		d.log.Error("the store failed", "err", err)
	}})
	if err != nil {
		return err
	}
	d.messages, err = msglog.Open(cfg.Log.Dir, msglog.Options{Keep: cfg.Log.Retention.D(), Failed: func(err error) {
		d.log.Error("the message log failed", "err", err)
	}})
	if err != nil {
		return err
	}
	d.tally = &tally{next: d.messages, flush: d.messages.Flush}
	if d.counts, err = openCounts(cfg.Store.Dir, limit.NewCounts(0)); err != nil {
		if d.counts.files[0] == nil {
			return fmt.Errorf("could not open the saved counts of users: %w; they must belong to the user that runs sluiced", err)
		}
		d.log.Error("could not restore what users have sent; limits begin anew", "err", err)
	}
	if d.choices, err = openChoices(cfg.Store.Dir, new(pool.Choices)); err != nil {
		if d.choices.files[0] == nil {
			return fmt.Errorf("could not open the saved choices of delivery addresses: %w; they must belong to the user that runs sluiced", err)
		}
		d.log.Error("could not restore from which addresses mail left; some may leave from others", "err", err)
	}
	if d.school, err = openSchool(cfg.Store.Dir, &cfg.Content, d.log); err != nil {
		if d.school == nil || d.school.files[0] == nil {
			return err
		}
		d.log.Error("could not restore what the learned content filter is worth; it has to prove itself anew", "err", err)
	}
	if d.campaigns, err = openCampaigns(cfg.Store.Dir, d.campaignSettings, d.store, d.campaignEvent); err != nil {
		if d.campaigns == nil || d.campaigns.files[0] == nil {
			return err
		}
		d.log.Error("could not restore what is known of campaigns; they begin anew", "err", err)
	}
	if d.habits, err = openHabits(cfg.Store.Dir); err != nil {
		if d.habits.files[0] == nil {
			return err
		}
		d.log.Error("could not restore what senders usually do; it is learnt anew", "err", err)
	}
	if d.senders, err = openSenders(cfg.Store.Dir); err != nil {
		if d.senders.files[0] == nil {
			return err
		}
		d.log.Error("could not restore which senders were found in users' mail; they are found anew", "err", err)
	}
	if d.patience, err = openPatience(cfg.Store.Dir); err != nil {
		if d.patience.files[0] == nil {
			return err
		}
		d.log.Error("could not restore what was put off to be judged again; it waits once more", "err", err)
	}
	if d.held, err = d.openQuarantine(cfg); err != nil {
		return err
	}
	d.samples, err = d.openSamples(cfg)
	return err
}

func makeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("could not make the folder %s: %w; make it, owned by this user", dir, err)
	}
	return nil
}

func inflightDir(cfg *config.Config) string { return filepath.Join(cfg.Store.Dir, "inflight") }

// listInflight opens the journal of messages in flight and puts what an earlier process left there into the log. It is
// on disk before the journal forgets it, in case this process is killed as well.
func (d *daemon) listInflight(cfg *config.Config, r *roster) (err error) {
	d.journal, err = inflight.Open(inflightDir(cfg), func(left []inflight.Entry) error {
		for i := range left {
			rec := ambiguous(&left[i], r)
			d.log.Warn("a message's fate is unknown: sluiced was killed while the destination had it", "id", rec.ID, "user", rec.Flow.User.Name, "from", rec.From)
			d.tally.Put(rec)
		}
		return d.messages.Flush()
	})
	return err
}

// closeFiles closes what is on disk, in the order in which it depends on each other.
func (d *daemon) closeFiles() error {
	var errs []error
	if c := d.linkClient(); c != nil {
		errs = append(errs, c.Close())
	}
	if d.mail != nil {
		errs = append(errs, d.mail.close())
	}
	if d.locks != nil {
		errs = append(errs, d.locks.Close())
	}
	if d.unenforced != nil {
		errs = append(errs, d.unenforced.locks.Close())
	}
	if d.distrust != nil && !d.retired() {
		errs = append(errs, d.distrust.Save())
	}
	d.audits.Wait()
	if d.journal != nil {
		errs = append(errs, d.journal.Close())
	}
	if d.counts != nil {
		errs = append(errs, d.counts.close())
	}
	if d.school != nil {
		errs = append(errs, d.school.closeLessons())
	}
	if d.campaigns != nil {
		errs = append(errs, d.campaigns.close())
	}
	if d.habits != nil {
		errs = append(errs, d.habits.close())
	}
	if d.senders != nil {
		errs = append(errs, d.senders.close())
	}
	if d.patience != nil {
		errs = append(errs, d.patience.close())
	}
	if d.choices != nil {
		errs = append(errs, d.choices.close())
	}
	if d.conduct != nil {
		errs = append(errs, d.conduct.close())
	}
	if d.messages != nil {
		errs = append(errs, d.messages.Close())
	}
	if d.store != nil {
		errs = append(errs, d.saveIdentities(), d.store.Close())
	}
	return errors.Join(errs...)
}

func (d *daemon) linkClient() *control.Client {
	if d.link == nil {
		return nil
	}
	return d.link.client.Swap(nil)
}
