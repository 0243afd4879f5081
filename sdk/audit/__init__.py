"""`tellsign audit`: is each detector sensitive to what its task is about, and blind to what it is not about?"""
