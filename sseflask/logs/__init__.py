"""The server's log, by the standard library: without secrets, and bounded if strangers cause it.

A filter makes each record safe (`masking`), formatters come after it (`json_log`). Each record has
the id of its request (`request_ids`).
"""
