"""Sends the jobs that come as JSON on standard input by Python's smtplib; one JSON list of what became of each goes out.

A job has host, tls, helo, from, to (a list) and data (base64); a result has the code for each recipient.
"""

import base64
import json
import smtplib
import ssl
import sys


def send(job):
    codes = {}
    with smtplib.SMTP(job["host"], 25, local_hostname=job["helo"], timeout=60) as s:
        if job["tls"]:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            s.starttls(context=context)
        try:
            refused = s.sendmail(job["from"], job["to"], base64.b64decode(job["data"]))
            codes = {a: 250 for a in job["to"]}
        except smtplib.SMTPRecipientsRefused as e:
            refused = e.recipients
        except smtplib.SMTPResponseException as e:
            refused = {a: (e.smtp_code, e.smtp_error) for a in job["to"]}
        codes.update({a: r[0] for a, r in refused.items()})
    return codes


def outcome(job):
    try:
        return {"codes": send(job)}
    except (OSError, smtplib.SMTPException) as e:
        return {"error": repr(e)}


json.dump([outcome(job) for job in json.load(sys.stdin)], sys.stdout)
