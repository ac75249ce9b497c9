/** The X.509 library, behind the polyfill that it needs to be loaded before it. Imported from here only. */
import 'reflect-metadata'

export * from '@peculiar/x509'
