"""How a sync looks: bars, tables, pictures, and the words and colours that they share.

Nothing here knows the clients or the models: what is shown comes as whatever has a job's counts.
"""
