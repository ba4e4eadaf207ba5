import de.bwaldvogel.mongo.MongoBackend;
import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.AbstractMongoBackend;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import de.bwaldvogel.mongo.bson.Document;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.List;

/** A server that speaks MongoDB's protocol: `Main PORT [FILE]`; without a file it keeps nothing. */
public final class Main {
    /** What pymongo asks for at least; the library's own newest version says less. */
    private static final class Version implements MongoVersion {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(5, 0, 0);
        }

        @Override
        public int getWireVersion() {
            return 13;
        }
    }

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        AbstractMongoBackend kept =
                arguments.length > 1 ? new H2Backend(arguments[1]) : new MemoryBackend();
        MongoServer server = new MongoServer(snapshots(kept.version(new Version())));
        server.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        System.out.println("ready " + server.getLocalAddress().getPort());
        // Whoever started it holds the other end of its input: it ends when they do.
        while (System.in.read() >= 0) {}
        System.exit(0);
    }

    /**
     * Answers that stay as they were when the command was done. The library answers with the
     * document that it holds, which the next command changes before it is sent: two callers
     * that each raise a number would both be told the later one, which no MongoDB does.
     */
    private static MongoBackend snapshots(MongoBackend backend) {
        Object turn = new Object();
        return (MongoBackend)
                Proxy.newProxyInstance(
                        Main.class.getClassLoader(),
                        new Class<?>[] {MongoBackend.class},
                        (proxy, method, values) -> {
                            try {
                                if (!method.getName().equals("handleMessage")) {
                                    return method.invoke(backend, values);
                                }
                                synchronized (turn) {
                                    return ((Document) method.invoke(backend, values)).cloneDeeply();
                                }
                            } catch (InvocationTargetException error) {
                                throw error.getCause();
                            }
                        });
    }
}
