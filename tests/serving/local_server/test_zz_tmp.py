import json, os, time
from pathlib import Path
import numpy as np, requests, pytest
from tests.serving.local_server.conftest import *
def rss(pid): return int(Path(f"/proc/{pid}/statm").read_text().split()[1])*4096/1e6
def test_leak(server):
    pid=server.process.pid
    print("\nRSS start", rss(pid))
    rows=[[float(i%97)]*10 for i in range(600000)]
    good=json.dumps({"inputs":rows}); 
    rows[-1]=["x"]*10
    bad=json.dumps({"inputs":rows}); print(len(bad)/1e6,"MB")
    for label,b in (("bad",bad),("bad",bad),("bad",bad)):
        t=time.time(); r=server.session.post(server.url+"/v1/models/default:predict",data=b,timeout=120); print(label,r.status_code,r.text[:80],f"{time.time()-t:.1f}s","RSS",rss(pid))
    for i in range(200): server.session.post(server.url+"/v1/models/default:predict",data='{"instances":[1.0]}')
    time.sleep(1); print("RSS after 200 small", rss(pid))
    t=time.time(); r=server.session.post(server.url+"/v1/models/default:predict",data=good,timeout=120); print("good",r.status_code,len(r.content),f"{time.time()-t:.1f}s","RSS",rss(pid))
    time.sleep(1); print("RSS after", rss(pid))
