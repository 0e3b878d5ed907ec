'use strict';
// The lab's plugin for Haraka: takes mail for anybody, refuses reject...@, puts off defer...@, writes a Maildir, and
// offers no STARTTLS at the addresses that config/bare lists.

const fs = require('node:fs');
const path = require('node:path');

const maildir = '/home/archive/Maildir';
let serial = 0;

exports.register = function () {
    this.bare = this.config.get('bare', 'list');
    for (const sub of ['tmp', 'new', 'cur']) {
        fs.mkdirSync(path.join(maildir, sub), { recursive: true });
    }
};

exports.hook_capabilities = function (next, connection) {
    if (this.bare.includes(connection.local.ip)) {
        connection.capabilities = connection.capabilities.filter((c) => c !== 'STARTTLS');
        connection.tls.advertised = false;
    }
    next();
};

exports.hook_rcpt = function (next, connection, params) {
    const user = params[0].user;
    if (user.startsWith('reject')) return next(DENY, 'Recipient unknown');
    if (user.startsWith('defer')) return next(DENYSOFT, 'Try again later');
    next(OK);
};

exports.hook_queue = function (next, connection) {
    serial += 1;
    const name = `${String(serial).padStart(6, '0')}.haraka`;
    const tmp = path.join(maildir, 'tmp', name);
    const out = fs.createWriteStream(tmp);
    out.once('error', (err) => next(DENYSOFT, err.message));
    out.once('close', () => fs.rename(tmp, path.join(maildir, 'new', name), (err) => {
        if (err) return next(DENYSOFT, err.message);
        next(OK);
    }));
    connection.transaction.message_stream.pipe(out);
};
