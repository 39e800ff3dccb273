"""A real Apache Kafka 3.9.1 (KRaft, one node) for integration tests.

    with Kafka(partitions=8) as kafka:
        kafka.create_topic("events", partitions=16)
        ... kafka.bootstrap ...

The jars come from Maven Central by the coordinates in pom.xml, once, into
${XDG_CACHE_HOME:-~/.cache}/moerank/kafka-3.9.1 (46 MB). Each broker has a fresh data folder in a
temporary one and free ports on loopback. Topics that a client asks for come into being with
`partitions` partitions. Whatever is missing raises an exception: a test that needs Kafka fails
without it, and is never skipped.
"""
import base64
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile

from process import Child, receive

VERSION = "3.9.1"
HERE = os.path.dirname(os.path.abspath(__file__))
JAVA = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={folder}/data
num.partitions={partitions}
auto.create.topics.enable=true
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
"""
LOG4J = """\
log4j.rootLogger=WARN, stderr
log4j.appender.stderr=org.apache.log4j.ConsoleAppender
log4j.appender.stderr.target=System.err
log4j.appender.stderr.layout=org.apache.log4j.PatternLayout
log4j.appender.stderr.layout.ConversionPattern=%d %p %c: %m%n
"""


def cache_folder():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "moerank", f"kafka-{VERSION}")


def _complete(folder):
    names = os.listdir(os.path.join(folder, "lib")) if os.path.isdir(folder) else []
    return (f"kafka_2.13-{VERSION}.jar" in names and "slf4j-reload4j-1.7.36.jar" in names
            and len(names) >= 40)


def fetch():
    """The folder of the jars. Fetched beside it and renamed, so that half a fetch never counts."""
    target = cache_folder()
    if _complete(target):
        return os.path.join(target, "lib")
    for program in ("mvn", "java"):
        if not shutil.which(program):
            raise RuntimeError(f"no {program}: run tools/setup (packages maven, openjdk-17-jre-headless)")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _complete(target):
            _fetch_into(target)
    return os.path.join(target, "lib")


def _fetch_into(target):
    beside = tempfile.mkdtemp(prefix="fetch-", dir=os.path.dirname(target))
    try:
        shutil.copy(os.path.join(HERE, "pom.xml"), beside)
        run = subprocess.run(
            ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime",
             f"-DoutputDirectory={beside}/lib"],
            cwd=beside, capture_output=True, text=True, timeout=600)
        if run.returncode != 0 or not _complete(beside):
            raise RuntimeError("Kafka could not be fetched from Maven Central (network? certificates?):\n"
                               + (run.stdout + run.stderr)[:3000])
        shutil.rmtree(target, ignore_errors=True)
        os.rename(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _string(text):
    return struct.pack(">h", len(text)) + text.encode()


class Kafka:
    def __init__(self, partitions=8):
        self.partitions = partitions
        self.folder = self.child = self.bootstrap = None

    def __enter__(self):
        jars = fetch()
        self.folder = tempfile.mkdtemp(prefix="moerank-kafka-")
        try:
            self.classpath = os.path.join(jars, "*")
            self._format()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def _write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
        return path

    def _format(self):
        self.port, controller = _free_ports(2)
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.conf = self._write("server.properties", PROPERTIES.format(
            broker=self.port, controller=controller, folder=self.folder,
            partitions=self.partitions))
        self.log4j = "-Dlog4j.configuration=file:" + self._write("log4j.properties", LOG4J)
        cluster = base64.urlsafe_b64encode(b"\x01" + os.urandom(15)).decode().rstrip("=")
        run = subprocess.run(
            JAVA + [self.log4j, "-cp", self.classpath, "kafka.tools.StorageTool", "format", "-t",
                    cluster, "-c", self.conf], capture_output=True, text=True, timeout=120)
        if run.returncode != 0:
            raise RuntimeError("Kafka's data folder could not be formatted:\n" + run.stdout + run.stderr)

    def start(self):
        """Starts the broker, or starts it again after stop() with the same data and address."""
        argv = JAVA + [self.log4j, "-cp", self.classpath, "kafka.Kafka", self.conf]
        self.child = Child("Kafka", argv, os.path.join(self.folder, "log"))
        self.child.wait_until(lambda: self.brokers() > 0, 90)

    def stop(self, sig=signal.SIGTERM):
        """A clean stop; signal.SIGKILL for a crash. The data stay until close()."""
        if self.child:
            self.child.stop(sig)

    def close(self):
        self.stop(signal.SIGKILL)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    # Three requests of Kafka's protocol by hand: a Python client is not in Debian.

    def _request(self, api, version, body):
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as s:
            message = struct.pack(">hhi", api, version, 1) + _string("moerank-test") + body
            s.sendall(struct.pack(">i", len(message)) + message)
            size, _ = struct.unpack(">ii", receive(s, 8))
            return receive(s, size - 4)

    def brokers(self):
        """How many brokers the metadata name (Metadata v1, no topics)."""
        return struct.unpack_from(">i", self._request(3, 1, struct.pack(">i", 0)))[0]

    def create_topic(self, name, partitions=None):
        """CreateTopics v1; raises if it exists."""
        topic = _string(name) + struct.pack(">ihii", partitions or self.partitions, 1, 0, 0)
        reply = self._request(19, 1, struct.pack(">i", 1) + topic + struct.pack(">ib", 30000, 0))
        at = 4 + 2 + len(name.encode())
        error, = struct.unpack_from(">h", reply, at)
        if error:
            raise RuntimeError(f"topic {name}: Kafka's error {error}")
        self.child.wait_until(lambda: len(self.leaders(name)) == (partitions or self.partitions), 30)

    def leaders(self, name):
        """The partitions of a topic that have a leader (Metadata v1)."""
        reply = self._request(3, 1, struct.pack(">i", 1) + _string(name))
        at = 4
        for _ in range(struct.unpack_from(">i", reply)[0]):  # brokers: id, host, port, rack
            at += 4
            at += 2 + struct.unpack_from(">h", reply, at)[0] + 4
            at += 2 + max(0, struct.unpack_from(">h", reply, at)[0])
        at += 4 + 4  # controller; one topic
        error, = struct.unpack_from(">h", reply, at)
        at += 2 + 2 + len(name.encode()) + 1
        n, = struct.unpack_from(">i", reply, at)
        at += 4
        led = []
        for _ in range(0 if error else n):  # error, partition, leader, replicas, in sync
            error, partition, leader, replicas = struct.unpack_from(">hiii", reply, at)
            at += 14 + 4 * replicas
            at += 4 + 4 * struct.unpack_from(">i", reply, at)[0]
            if error == 0 and leader >= 0:
                led.append(partition)
        return led
