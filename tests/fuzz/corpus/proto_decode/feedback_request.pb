
&
k1€€ùÀÁÄ‚j
u1s1i2"click*r1

x>{"event":"user","id":"j1","timestamp":1,"user":"u"}

nonsense
