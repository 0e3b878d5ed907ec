"""The lab's aiosmtpd server: takes mail for anybody, refuses reject...@, puts off defer...@, writes a Maildir.

Arguments: host name, certificate, key, Maildir, addresses with STARTTLS by comma, addresses without by comma.
"""

import asyncio
import itertools
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP


class Server(SMTP):
    # Real mail has longer lines than RFC 5321 allows; the default closes the connection at them.
    line_length_limit = 1 << 20


class Archive:
    def __init__(self, maildir):
        self.maildir = maildir
        self.serial = itertools.count()
        for sub in ("tmp", "new", "cur"):
            os.makedirs(os.path.join(maildir, sub), exist_ok=True)

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("reject"):
            return "550 5.1.1 Recipient unknown"
        if address.startswith("defer"):
            return "451 4.3.0 Try again later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        name = "%06d.aiosmtpd" % next(self.serial)
        tmp = os.path.join(self.maildir, "tmp", name)
        trace = "Received: from %s by %s with %s\r\n" % (
            session.host_name, server.hostname, "ESMTPS" if session.ssl else "ESMTP")
        with open(tmp, "wb") as f:
            f.write(trace.encode("ascii", "replace"))
            f.write(envelope.original_content)
        os.rename(tmp, os.path.join(self.maildir, "new", name))
        return "250 2.0.0 OK queued"


async def main(host, cert, key, maildir, tls_at, plain_at):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    archive = Archive(maildir)
    loop = asyncio.get_running_loop()

    def make(tls):
        return lambda: Server(
            archive, hostname=host, ident="ESMTP aiosmtpd", enable_SMTPUTF8=True,
            data_size_limit=52428800, auth_exclude_mechanism=("LOGIN", "PLAIN"), tls_context=context if tls else None, loop=loop)

    for addresses, tls in ((tls_at, True), (plain_at, False)):
        for address in filter(None, addresses.split(",")):
            await loop.create_server(make(tls), address, 25)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:7]))
