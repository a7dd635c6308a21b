"""The mail catcher: an SMTP server that delivers to nobody, and a page that shows the mails.

Run with `python -m deploy.local.mailbox`; `deploy.local.parts.mail_catcher.MailCatcher` starts it as a part of the stack.
"""
