'use strict';
// Sends the jobs that come as JSON on standard input by nodemailer; one JSON list of what became of each goes out. A
// job has host, tls, helo, from, to (a list) and data (base64); a result has the code for each recipient.

const fs = require('node:fs');
const nodemailer = require('/usr/share/sluice-lab/node_modules/nodemailer');

async function send(job) {
    const codes = {};
    const transport = nodemailer.createTransport({
        host: job.host, port: 25, name: job.helo, secure: false,
        requireTLS: job.tls, ignoreTLS: !job.tls, tls: { rejectUnauthorized: false },
    });
    const note = (errors) => {
        for (const e of errors || []) codes[e.recipient] = e.responseCode;
    };
    try {
        const info = await transport.sendMail({
            envelope: { from: job.from, to: job.to }, raw: Buffer.from(job.data, 'base64'),
        });
        for (const a of info.accepted) codes[a] = 250;
        note(info.rejectedErrors);
    } catch (e) {
        if (!e.responseCode) return { error: String(e) };
        for (const a of job.to) codes[a] = e.responseCode;
        note(e.rejectedErrors);
    }
    return { codes };
}

(async () => {
    const all = [];
    for (const job of JSON.parse(fs.readFileSync(0))) all.push(await send(job));
    process.stdout.write(JSON.stringify(all));
})();
